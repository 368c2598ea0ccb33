"""docs/peers.md: the fastest peer of each kind beside us, in all the ways that one may run them.

    python -m benchmarks.peers [--rounds 40] [--work DIR] [--only TABLE ...]

8 bits and half precision, two threads, two streams, batches, cold start, and LeViT beside an
EfficientNet of the same accuracy. The figures land in benchmarks/peers.json, from which the
document is written; tables that are not made anew stay. Contenders of a table take turns. Needs
openvino, nncf, ai-edge-litert, litert-torch and executorch (`pip install --no-deps` where another
torch would come with them) and an idle machine. The peers' files, which take about fifteen minutes,
and our libraries stay in DIR and are used again, ours as long as the code is the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

import levit_deploy
from benchmarks import cold_start
from benchmarks.cold_start import Command
from benchmarks.peer_files import Net, made, module
from benchmarks.peer_worker import Job
from benchmarks.peers_report import DOCUMENT, RECORD, document
from levit_deploy.runtime.artifact import Artifact, folder_name
from levit_deploy.targets.table import HOST, get_target
from levit_deploy.verify.latency import TURN_S, measure

SMALL = Net("levit_128s", 224)
MIDDLE = Net("levit_192", 224)
LARGE = Net("levit_256", 224)
LARGEST = Net("levit_384", 224)
OURS = "levit-deploy"
STARTS = 12


@dataclass(frozen=True)
class Contender:
    """What takes turns, as levit_deploy.verify.latency asks."""

    name: str
    job: Job

    @property
    def command(self) -> Sequence[str]:
        job = json.dumps(asdict(self.job))
        return (sys.executable, "-m", "benchmarks.peer_worker", job)


@dataclass(frozen=True)
class Kind:
    """A peer in one of its forms: with what it runs which kind of file."""

    name: str
    runtime: str
    file: str
    hint: str = "f32"

    def contender(self, net: Net, work: Path, *, threads: int = 1, streams: int = 1) -> Contender:
        file = str(made(net, self.file, work))
        return Contender(
            self.name, Job(self.runtime, file, net.size, threads, streams, net.batch, self.hint)
        )


ONNXRUNTIME = Kind("ONNX Runtime fp32", "onnxruntime", "fp32.onnx")
ONNXRUNTIME_DYNAMIC = Kind("ONNX Runtime dynamic int8", "onnxruntime", "dynamic.onnx")
ONNXRUNTIME_QDQ = Kind("ONNX Runtime static int8, QDQ", "onnxruntime", "qdq.onnx")
ONNXRUNTIME_QOPERATOR = Kind("ONNX Runtime static int8, QOperator", "onnxruntime", "qoperator.onnx")
OPENVINO = Kind("OpenVINO fp32", "openvino", "fp32.onnx")
OPENVINO_INT8 = Kind("OpenVINO, NNCF int8", "openvino", "int8.xml")
OPENVINO_BF16 = Kind("OpenVINO, bf16 hint", "openvino", "fp32.onnx", "bf16")
OPENVINO_F16 = Kind("OpenVINO, f16 hint", "openvino", "fp32.onnx", "f16")
LITERT = Kind("LiteRT fp32", "litert", "fp32.tflite")
LITERT_DYNAMIC = Kind("LiteRT dynamic int8", "litert", "dynamic.tflite")
LITERT_INT8 = Kind("LiteRT static int8", "litert", "int8.tflite")
EXECUTORCH = Kind("ExecuTorch fp32", "executorch", "fp32.pte")
EXECUTORCH_INT8 = Kind("ExecuTorch static int8", "executorch", "int8.pte")

FLOATS = (ONNXRUNTIME, OPENVINO, LITERT, EXECUTORCH)
HALVES = (OPENVINO_BF16, OPENVINO_F16)
EIGHT_BITS = (
    OPENVINO_INT8,
    ONNXRUNTIME_DYNAMIC,
    ONNXRUNTIME_QDQ,
    ONNXRUNTIME_QOPERATOR,
    LITERT_DYNAMIC,
    LITERT_INT8,
    EXECUTORCH_INT8,
)
FASTEST_FLOATS = (ONNXRUNTIME, OPENVINO, LITERT)
FASTEST_8_BITS = (OPENVINO_INT8, ONNXRUNTIME_DYNAMIC, LITERT_DYNAMIC)


@dataclass(frozen=True)
class Table:
    """Ratios are those of the first contender, ours, by each of the others."""

    title: str
    note: str
    contenders: Sequence[Contender]
    burners: int = 0  # processes that take all the CPU time they get, meanwhile
    turn_s: float = TURN_S


def one_thread(
    net: Net, title: str, precision: str, kinds: Sequence[Kind], note: str, work: Path
) -> Table:
    return Table(f"{title}, one thread", note, side_by_side(net, precision, kinds, work))


def half(
    net: Net, title: str, precisions: Sequence[str], kinds: Sequence[Kind], work: Path
) -> Table:
    """Ours without arithmetic of these types stores the weights in them."""
    contenders = [ours(net, precision, work) for precision in precisions]
    contenders += [kind.contender(net, work) for kind in kinds]
    note = (
        "What OpenVINO makes of a hint: behind its version is the type that it says it runs. "
        "Without instructions for bf16 (AVX512_BF16, AMX) it computes bf16 very slowly; we widen "
        "stored weights."
    )
    return Table(f"{title}, half precision, one thread", note, contenders)


def two_threads(precision: str, kinds: Sequence[Kind], work: Path) -> Table:
    contenders = side_by_side(SMALL, precision, kinds, work, threads=2)
    return Table(f"LeViT-128S, {precision}, two threads", "", contenders)


def busy(work: Path) -> Table:
    """Turns are long: the system takes a while to settle who runs where."""
    contenders = side_by_side(SMALL, "fp32", FASTEST_FLOATS, work, threads=2)
    alone = ours(SMALL, "fp32", work)
    contenders.insert(1, replace(alone, name=f"{alone.name}, one thread"))
    title = "LeViT-128S, fp32, two threads on two cores beside a busy process"
    return Table(title, "Medians.", contenders, burners=1, turn_s=0.5)


def two_streams(precision: str, kinds: Sequence[Kind], work: Path) -> Table:
    note = "Two images at once, each on one thread: the time by the number of images."
    contenders = side_by_side(SMALL, precision, kinds, work, streams=2)
    return Table(f"LeViT-128S, {precision}, two streams", note, contenders)


def batches(precision: str, kinds: Sequence[Kind], work: Path) -> Table:
    """Ours takes one image a call."""
    contenders = [ours(SMALL, precision, work)]
    for kind in kinds:
        for batch in (1, 4, 16):
            one = kind.contender(replace(SMALL, batch=batch), work)
            contenders.append(replace(one, name=f"{one.name}, batch {batch}"))
    note = "Several images a call, one thread: the time by the number of images. Ours: one a call."
    return Table(f"LeViT-128S, {precision}, batches", note, contenders)


def beside_efficientnet(levit: Net, rival: Net, accuracy: str, work: Path) -> Table:
    contenders = [ours(levit, "int8", work), ours(levit, "fp32", work)]
    for kind in (ONNXRUNTIME, OPENVINO, ONNXRUNTIME_QDQ, OPENVINO_INT8):
        one = kind.contender(rival, work)
        contenders.append(replace(one, name=f"{rival.name}, {one.name}"))
    title = f"{levit.name} beside {rival.name} at {rival.size} px, one thread"
    return Table(
        title, f"About equally accurate on ImageNet, as published: {accuracy}.", contenders
    )


TABLES: dict[str, Callable[[Path], Table]] = {
    "int8": partial(
        one_thread,
        SMALL,
        "LeViT-128S, 8 bits",
        "int8",
        EIGHT_BITS,
        "Static: steps come from calibration; dynamic: from each image, for matrix products alone.",
    ),
    "int8-256": partial(one_thread, LARGE, "LeViT-256, 8 bits", "int8", EIGHT_BITS[:3], ""),
    "fp32": partial(one_thread, SMALL, "LeViT-128S, fp32", "fp32", FLOATS, ""),
    "half": partial(half, SMALL, "LeViT-128S", ("bf16", "fp16", "fp32"), HALVES),
    "half-256": partial(half, LARGE, "LeViT-256", ("bf16", "fp32"), HALVES[:1]),
    "half-384": partial(half, LARGEST, "LeViT-384", ("bf16", "fp32"), HALVES[:1]),
    "threads-fp32": partial(two_threads, "fp32", FASTEST_FLOATS),
    "threads-int8": partial(two_threads, "int8", FASTEST_8_BITS),
    "busy": busy,
    "streams-fp32": partial(two_streams, "fp32", FASTEST_FLOATS),
    "streams-int8": partial(two_streams, "int8", FASTEST_8_BITS),
    "batch-fp32": partial(batches, "fp32", (ONNXRUNTIME, OPENVINO)),
    "batch-int8": partial(batches, "int8", (ONNXRUNTIME_DYNAMIC, OPENVINO_INT8)),
    "b2": partial(
        beside_efficientnet, MIDDLE, Net("efficientnet_b2", 260), "80.0 and 80.1 % top-1"
    ),
    "b3": partial(beside_efficientnet, LARGE, Net("efficientnet_b3", 300), "81.6 and 81.6 % top-1"),
}
START = "start"


def starts(work: Path) -> dict[str, Command]:
    int8, fp32 = (compiled(SMALL, precision, work) for precision in ("int8", "fp32"))
    onnx = made(SMALL, "fp32.onnx", work)
    tflite = made(SMALL, "fp32.tflite", work)
    return {
        f"{OURS} int8, C": cold_start.c_program(int8),
        f"{OURS} fp32, C": cold_start.c_program(fp32),
        f"{OURS} int8, Python": cold_start.python(cold_start.OURS, int8.folder),
        "Python with numpy, nothing else": cold_start.python(cold_start.NUMPY),
        "ONNX Runtime fp32, Python": cold_start.python(cold_start.ONNXRUNTIME, onnx),
        "OpenVINO fp32, Python": cold_start.python(cold_start.OPENVINO, onnx),
        "OpenVINO fp32 with its model cache, Python": cold_start.python(
            cold_start.OPENVINO, onnx, work / "cache"
        ),
        "LiteRT fp32, Python": cold_start.python(cold_start.LITERT, tflite),
    }


def side_by_side(
    net: Net,
    precision: str,
    kinds: Sequence[Kind],
    work: Path,
    *,
    threads: int = 1,
    streams: int = 1,
) -> list[Contender]:
    """Ours first."""
    peers = [kind.contender(net, work, threads=threads, streams=streams) for kind in kinds]
    return [ours(net, precision, work, threads=threads, streams=streams), *peers]


def ours(net: Net, precision: str, work: Path, *, threads: int = 1, streams: int = 1) -> Contender:
    library = str(compiled(net, precision, work).shared_library)
    job = Job("levit_deploy", library, net.size, threads, streams)
    return Contender(f"{OURS}, {net.name} {precision}", job)


def compiled(net: Net, precision: str, work: Path) -> Artifact:
    """Compiled for this machine by the command line; used again if it was with this very code."""
    parent = work / code_digest()
    folder = parent / folder_name(net.name, HOST, precision)
    if not folder.exists():
        parent.mkdir(exist_ok=True)
        weights = parent / f"{net.name}.pth"
        torch.save({"model": module(net.name, net.size).state_dict()}, weights)
        command = ("compile", "--target", HOST, net.name, "--weights", weights, "-o", parent)
        tool = (sys.executable, "-m", "levit_deploy.cli")
        subprocess.run(
            (*tool, *command, "--precision", precision), check=True, stdout=subprocess.DEVNULL
        )
    return Artifact.load(folder)


@cache
def code_digest() -> str:
    package = Path(levit_deploy.__file__).parent
    files = (file for file in sorted(package.rglob("*")) if file.suffix in {".py", ".c", ".h"})
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--work", type=Path, help="[default: a temporary folder]")
    names = (*TABLES, START)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    record = record_of_this_machine()
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for name in options.only:
            begin = time.perf_counter()
            new = started(work) if name == START else timed(TABLES[name](work), options.rounds)
            tables = {**record["tables"], name: new}
            record["tables"] = {name: tables[name] for name in names if name in tables}
            RECORD.write_text(json.dumps(record, indent=1) + "\n")
            print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    DOCUMENT.write_text(document(record))


def record_of_this_machine() -> dict[str, Any]:
    """What was measured so far: nothing, if it was elsewhere."""
    host = get_target(HOST)
    here = {"machine": host.description.split(": ")[-1], "code": host.base}
    before = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    same = before.items() >= here.items()
    return {**here, "tables": before["tables"] if same else {}}


def timed(table: Table, rounds: int) -> dict[str, object]:
    load = os.getloadavg()[0]
    burn = (sys.executable, "-c", "while True: pass")
    burners = [subprocess.Popen(burn) for _ in range(table.burners)]
    try:
        latencies = measure(table.contenders, rounds, turn_s=table.turn_s)
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    return {
        "title": table.title,
        "note": table.note,
        "load": load,
        "shown": "median" if table.burners else "min",
        "rows": [asdict(latency) for latency in latencies],
    }


def started(work: Path) -> dict[str, object]:
    commands = starts(work)
    load = os.getloadavg()[0]
    rows = [asdict(latency) for latency in cold_start.time_starts(commands, STARTS)]
    title = "LeViT-128S, from the start of a process to the first logits, one thread"
    return {"title": title, "note": cold_start.NOTE, "load": load, "shown": "min", "rows": rows}


if __name__ == "__main__":
    main()
