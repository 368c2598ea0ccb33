"""How fast and how small 8 bits are: our libraries beside ONNX Runtime on the same network.

    python -m benchmarks.quantization_speed [--rounds 60] [--work DIR]

LeViT-128S with the demonstration's body and random heads for 1000 classes, one thread, all
contenders in turns (levit_deploy/verify/latency.py). Ours is compiled for x86-64-v3 and for this
machine; ONNX Runtime's kernels always use what this machine has. Every form of its static
quantization takes part: both formats, three pairs of types. The record is part of the document
that `python -m benchmarks.quantization` writes. Needs an idle machine and a few minutes; what is in
DIR from an earlier run is used again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from onnxruntime import quantization as ort
from safetensors.torch import load_file, save_file

from benchmarks.quantizers import Network, quantize_onnxruntime
from levit_deploy.calibration.image_set import open_images
from levit_deploy.export.export_model import export_model
from levit_deploy.models.checkpoint import load_checkpoint
from levit_deploy.models.demo import DEMO_MODEL, DEMO_WEIGHTS
from levit_deploy.models.spec import get_spec
from levit_deploy.models.weights import DEMO
from levit_deploy.runtime.artifact import Artifact, folder_name
from levit_deploy.targets.table import HOST, get_target
from levit_deploy.verify.latency import Contender, measure
from levit_deploy.verify.peer import Peer

RECORD = Path(__file__).with_name("quantization_speed.json")
SPEC = get_spec(DEMO_MODEL)
TARGETS = ("x86-64-v3", HOST)
PICTURES = 64  # to calibrate on: what they show does not change a latency


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--work", type=Path, help="[default: a temporary folder]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as name:
        work = options.work or Path(name)
        weights = thousand_classes(work)
        artifacts = {
            f"{precision} {target}": compile_for(target, precision, weights, work)
            for target in TARGETS
            for precision in ("fp32", "int8")
        }
        ours = [
            Contender(f"levit-deploy {name}", Peer.ARTIFACT, a.shared_library, 1, SPEC.image_size)
            for name, a in artifacts.items()
        ]
        latencies = measure([*ours, *onnxruntime_contenders(weights, work)], options.rounds)
        record = {
            "machine": get_target(HOST).description,
            "code": get_target(HOST).base,
            "latencies": [asdict(latency) for latency in latencies],
            "library_bytes": {
                name: artifact.shared_library.stat().st_size for name, artifact in artifacts.items()
            },
        }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(RECORD.read_text(), end="")


def thousand_classes(work: Path) -> Path:
    """The demonstration's weights but for the heads."""
    state = load_file(DEMO_WEIGHTS)
    torch.manual_seed(0)
    for head in ("head.l", "head_dist.l"):
        weight = state[f"{head}.weight"]
        state[f"{head}.weight"] = torch.randn(1000, weight.shape[1], dtype=weight.dtype) / 20
        state[f"{head}.bias"] = torch.zeros(1000, dtype=weight.dtype)
    file = work / "thousand.safetensors"
    save_file(state, file)
    return file


def compile_for(target: str, precision: str, weights: Path, work: Path) -> Artifact:
    folder = work / folder_name(DEMO_MODEL, target, precision)
    if folder.exists():
        return Artifact.load(folder)
    command = ("compile", "--target", target, DEMO_MODEL, "--weights", weights, "-o", work)
    calibration = ("--precision", precision, "--data", DEMO) if precision == "int8" else ()
    subprocess.run(
        (sys.executable, "-m", "levit_deploy.cli", *command, *calibration),
        check=True,
        capture_output=True,
    )
    return Artifact.load(folder)


def onnxruntime_contenders(weights: Path, work: Path) -> Iterator[Contender]:
    checkpoint = load_checkpoint(weights, SPEC)
    exported = export_model(checkpoint.build(), name=DEMO_MODEL, weights_digest=checkpoint.digest)
    pictures = open_images(DEMO, checkpoint.preprocessing, SPEC.image_size, maximum=PICTURES)
    network = Network(checkpoint, exported, pictures, work)
    size = SPEC.image_size
    yield Contender("ONNX Runtime fp32", Peer.ONNXRUNTIME, network.onnx_file(), 1, size)
    for form in (ort.QuantFormat.QDQ, ort.QuantFormat.QOperator):
        for types in ("u8s8", "u8u8", "s8s8"):
            file = work / f"{form.name}-{types}.onnx"
            if not file.exists():
                quantize_onnxruntime(network, types, "min-max", form, file)
            name = f"ONNX Runtime int8 {form.name} {types}"
            yield Contender(name, Peer.ONNXRUNTIME, file, 1, size)


if __name__ == "__main__":
    main()
