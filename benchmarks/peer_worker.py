"""One contender of `benchmarks.peers`, which speaks as levit_deploy/verify/latency_worker.py does.

Run as a module with a Job in JSON. Several streams are threads that classify at once, each with
what the runtime has for that; then the times are those of all of them by the number of images.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WARM_UP = 3

Call = Callable[[], object]


@dataclass(frozen=True)
class Job:
    """`threads` for each of `streams`; `batch` images (3, size, size) a call, float32.

    `hint`: OpenVINO's INFERENCE_PRECISION_HINT.
    """

    runtime: str
    file: str
    size: int
    threads: int = 1
    streams: int = 1
    batch: int = 1
    hint: str = "f32"

    def image(self) -> NDArray[np.float32]:
        shape = (self.batch, 3, self.size, self.size)
        return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def levit_deploy(job: Job) -> tuple[list[Call], str]:
    from pathlib import Path

    from levit_deploy.runtime.loader import Library

    libraries = [Library(Path(job.file), threads=job.threads) for _ in range(job.streams)]
    image = job.image()
    calls: list[Call] = [lambda one=one: one.run(image) for one in libraries]  # type: ignore[misc]
    return calls, libraries[0].describe().tool_version


def onnxruntime(job: Job) -> tuple[list[Call], str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(job.file, options, providers=providers)
    feed = {session.get_inputs()[0].name: job.image()}
    return [lambda: session.run(None, feed)] * job.streams, onnxruntime.__version__


def openvino(job: Job) -> tuple[list[Call], str]:
    import openvino

    config = {
        "INFERENCE_NUM_THREADS": job.threads * job.streams,
        "NUM_STREAMS": job.streams,
        "PERFORMANCE_HINT": "THROUGHPUT" if job.streams > 1 else "LATENCY",
        "INFERENCE_PRECISION_HINT": job.hint,
    }
    model = openvino.Core().compile_model(job.file, "CPU", config)
    requests = [model.create_infer_request() for _ in range(job.streams)]
    image = job.image()
    calls: list[Call] = [lambda one=one: one.infer({0: image}) for one in requests]  # type: ignore[misc]
    used = model.get_property("INFERENCE_PRECISION_HINT").to_string()
    runs = "" if job.hint == "f32" else f",{used}"
    return calls, openvino.__version__.split("-")[0] + runs


def litert(job: Job) -> tuple[list[Call], str]:
    from importlib.metadata import version

    from ai_edge_litert.interpreter import Interpreter

    def call() -> Call:
        interpreter = Interpreter(job.file, num_threads=job.threads)
        interpreter.allocate_tensors()
        details = interpreter.get_input_details()[0]
        image = job.image()
        if details["dtype"] == np.int8:
            image = (image * 32).clip(-128, 127).astype(np.int8)

        def classify() -> object:
            interpreter.set_tensor(details["index"], image)
            interpreter.invoke()
            return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

        return classify

    return [call() for _ in range(job.streams)], version("ai-edge-litert")


def executorch(job: Job) -> tuple[list[Call], str]:
    from importlib.metadata import version

    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    portable_lib._unsafe_reset_threadpool(job.threads)
    method = Runtime.get().load_program(job.file).load_method("forward")
    image = torch.from_numpy(job.image())
    return [lambda: method.execute([image])] * job.streams, version("executorch")


RUNTIMES = {f.__name__: f for f in (levit_deploy, onnxruntime, openvino, litert, executorch)}


def times(
    calls: Sequence[Call], batch: int, images: int, pool: ThreadPoolExecutor
) -> list[list[int]]:
    """[wall ns, process CPU ns] for one image: of each call, or of all streams' calls together."""
    rounds = max(1, round(images / (batch * len(calls))))
    if len(calls) == 1:
        return [timed(calls[0], batch) for _ in range(rounds)]

    def stream(call: Call) -> None:
        for _ in range(rounds):
            call()

    return [timed(lambda: list(pool.map(stream, calls)), rounds * batch * len(calls))]


def timed(call: Call, images: int) -> list[int]:
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    call()
    wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
    return [wall // images, cpu // images]


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the contender prints must not get between the answers
    job = Job(**json.loads(sys.argv[1]))
    calls, version = RUNTIMES[job.runtime](job)
    for call in calls * WARM_UP:
        call()
    print(f"ready {version}", file=answers)
    with ThreadPoolExecutor(job.streams) as pool:
        for line in sys.stdin:
            print(json.dumps(times(calls, job.batch, int(line), pool)), file=answers)


if __name__ == "__main__":
    main()
