"""One contender of a latency measurement, in a process of its own.

Run as a module: `latency_worker PEER FILE THREADS CHANNELS SIZE`. It loads, warms up and says
`ready` with its version; then for every number N that it reads it classifies N times and answers
with a JSON list of [wall ns, process CPU ns], one pair an image. The image is noise: latency does
not depend on it. PEER is a value of Peer. Peers are timed with nothing else of this package and in
Python 3.9 or later: `bench --on` sends this file to boards.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WARM_UP = 3

Image = NDArray[np.float32]  # (1, channels, size, size)
Classify = Callable[[], object]


def _artifact(file: Path, threads: int, image: Image) -> tuple[Classify, str]:
    from levit_deploy.runtime.loader import Library

    library = Library(file, threads=threads)
    return (lambda: library.run(image)), library.describe().tool_version


def _onnxruntime(file: Path, threads: int, image: Image) -> tuple[Classify, str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return (lambda: session.run(None, {"image": image})), str(onnxruntime.__version__)


def _openvino(file: Path, threads: int, image: Image) -> tuple[Classify, str]:
    import openvino

    model = openvino.compile_model(
        file,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        },
    )
    request = model.create_infer_request()
    return (lambda: request.infer({0: image})), str(openvino.__version__).split("-")[0]


def _torch(file: Path, threads: int, image: Image) -> tuple[Classify, str]:
    import torch

    torch.set_num_threads(threads)
    program = torch.jit.load(file)  # type: ignore[no-untyped-call]
    batch = torch.from_numpy(image)

    def classify() -> object:
        with torch.inference_mode():
            return program(batch)

    return classify, str(torch.__version__)


_LOADERS = {
    "levit_deploy": _artifact,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
}


def _measure(classify: Classify) -> tuple[int, int]:
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    classify()
    return time.perf_counter_ns() - wall, time.process_time_ns() - cpu


def main(peer: str, file: str, threads: str, channels: str, size: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the contender prints must not get between the answers
    shape = (1, int(channels), int(size), int(size))
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    classify, version = _LOADERS[peer](Path(file), int(threads), noise)
    for _ in range(WARM_UP):
        classify()
    print(f"ready {version}", file=answers)
    for line in sys.stdin:
        print(json.dumps([_measure(classify) for _ in range(int(line))]), file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
