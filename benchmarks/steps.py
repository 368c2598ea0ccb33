"""Is verification neither blind nor deaf? Right libraries and planted faults over many networks.

    python -m benchmarks.steps              # 208 networks, half an hour and more
    python -m benchmarks.steps 50 10        # the first 50 of them, at most 10 minutes

Each network is exported, in every second one quantized, compiled for this machine, and judged as
`verify` does: by its self test, and by both entry points on 16 pictures against the bound that
verify/tolerance.py makes of the network. Then faults are planted in the library's constants, and
each faulty library is judged in the same way:

    scale   all scales of a layer times 8 (fp32: all weights behind its bias)
    panel   the first 2 KiB of a layer's weights, in rows of 64 bytes in another order
    bias    one bias off, by 1e-3 to 10 times the largest of its layer

What a fault costs is measured on 16 other pictures, in multiples of the bound: a fault that costs
less is not told from rounding, one that costs more must be found. The networks: `trained`, tests/'s
tiny LeViT and the demonstration's; `twin`, the same with outlier channels; `head`, trained bodies
under random heads; `random`, random weights at 32 to 96 px; `real`, random weights at full size.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.quantization import TEST_IMAGES
from levit_deploy.calibration.image_set import open_images
from levit_deploy.calibration.quantize_model import quantize_model
from levit_deploy.calibration.recipe import DEFAULT_RECIPE
from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.program import Program
from levit_deploy.errors import DeployError
from levit_deploy.export.export_model import export_model
from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.checkpoint import load_checkpoint
from levit_deploy.models.demo import DEMO_MODEL, DEMO_WEIGHTS
from levit_deploy.models.preprocessing import DEMO_PREPROCESSING, ORIGINAL_PREPROCESSING
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import TINY, ModelSpec, get_spec
from levit_deploy.models.weights import DEMO
from levit_deploy.network.arithmetic import Float32
from levit_deploy.runtime.build import build_artifact
from levit_deploy.runtime.loader import Library
from levit_deploy.targets.table import HOST, get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.comparison import compare
from levit_deploy.verify.expectation import Expectation, Reference, expect
from levit_deploy.verify.images import Images, real_images
from levit_deploy.verify.verification import reference_self_test
from tests.outlier_channels import with_outlier_channels
from tests.randomize import randomize

TINY_WEIGHTS = TEST_IMAGES.with_name("levit_tiny_cifar10.safetensors")
IMAGES = 16
FAULTS = ("scale", "panel", "bias")
ROW_BYTES = 64
PANEL_ROWS = 32  # 2 KiB: 32 outputs of 64 inputs in 8 bits, 16 of 32 in float32
PROCESSES = 2


@dataclass(frozen=True)
class Case:
    """`kind`: which of the groups above. `int8`: or fp32."""

    kind: str
    seed: int
    int8: bool


@dataclass(frozen=True)
class Fault:
    """`cost`: in multiples of the bound, on other pictures than those that it was looked for on."""

    what: str
    cost: float
    found: bool


@dataclass(frozen=True)
class Result:
    """`error`: of the right library, in multiples of the bound. `refused`: why, if it was."""

    case: Case
    bound: float
    error: float
    refused: str
    faults: tuple[Fault, ...]


def cases() -> list[Case]:
    """In an order that mixes the kinds, the same each time."""
    counts = {"trained": 4, "twin": 44, "head": 56, "random": 98, "real": 6}
    found = [
        Case(kind, seed // 2, bool(seed % 2)) for kind, n in counts.items() for seed in range(n)
    ]
    random.Random(0).shuffle(found)
    return found


def build(case: Case) -> Levit:
    seed = case.seed
    tiny, demo = (
        lambda: load_checkpoint(TINY_WEIGHTS, TINY).build(),
        lambda: load_checkpoint(DEMO_WEIGHTS, get_spec(DEMO_MODEL)).build(),
    )
    match case.kind:
        case "trained":
            return (tiny, demo)[seed % 2]()
        case "twin":
            net = demo() if seed % 11 == 0 else tiny()
            return with_outlier_channels(net, (0.5, 1.0, 1.5, 2.0)[seed % 4], seed)
        case "head":
            return _random_head(tiny(), (1, 2, 3, 10, 100)[seed % 5], seed)
        case "random":
            size, key_dim = (32, 48, 64, 96)[seed % 4], (8, 16)[seed // 4 % 2]
            classes = (10, 3, 1)[seed % 3]
            spec = replace(TINY, image_size=size, key_dim=key_dim, classes=classes)
            return randomize(Levit(spec), seed)
        case _:
            spec = get_spec(("levit_128", "levit_192", "levit_256")[seed % 3])
            return randomize(Levit(spec), seed)


def _random_head(body: Levit, classes: int, seed: int) -> Levit:
    net = randomize(Levit(replace(body.spec, classes=classes)), seed)
    state = {key: value for key, value in body.state_dict().items() if "head" not in key}
    net.load_state_dict(state, strict=False)
    return net


def measure(case: Case) -> Result:
    torch.set_num_threads(1)
    net = build(case)
    try:
        return _measure(case, net, net.spec)
    except DeployError as error:
        return Result(case, 0.0, 0.0, error.message, ())


def _measure(case: Case, net: Levit, spec: ModelSpec) -> Result:
    model = export_model(net, name="net", weights_digest="0" * 64)
    if case.int8:
        calibration = open_images(DEMO, DEMO_PREPROCESSING, spec.image_size, maximum=24)
        model = quantize_model(model, calibration, DEFAULT_RECIPE)[0]
    reference = Reference(
        "0" * 64, spec.image_size, spec.normalization, DEMO_PREPROCESSING, net, model
    )
    images = real_images(spec, 2 * IMAGES, ORIGINAL_PREPROCESSING)
    seen, others = images.first(IMAGES), images.part(slice(IMAGES, None))
    expected, unseen = (expect(reference, model.precision, part) for part in (seen, others))
    target = get_target(HOST)
    program = compile_model(model, target)
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as name:
        self_test = reference_self_test(reference)
        artifact = build_artifact(program, find_toolchain(target), self_test, Path(name))
        refused = judge(artifact.shared_library, seen, expected)
        error = cost(artifact.shared_library, seen, expected, expected.tolerance.fraction)
        faults = []
        for number, (what, content) in enumerate(
            plant(artifact.shared_library.read_bytes(), program, model, case.seed)
        ):
            faulty = Path(name) / f"faulty{number}.so"
            faulty.write_bytes(content)
            costs = cost(faulty, others, unseen, expected.tolerance.fraction)
            faults.append(Fault(what, costs, bool(judge(faulty, seen, expected))))
    return Result(case, expected.tolerance.fraction, error, refused, tuple(faults))


def judge(library: Path, images: Images, expected: Expectation) -> str:
    """Why the library is refused, or nothing."""
    loaded = Library(library)
    try:
        loaded.self_test()
    except DeployError as error:
        return error.message
    for classify, pictures in (
        (loaded.run, images.floats),
        (loaded.run_rgb8, images.pixels),
    ):
        logits = np.stack([classify(picture) for picture in pictures])
        comparison = compare(expected.logits, logits, expected.tolerance)
        if not comparison:
            return comparison.describe()
    return ""


def cost(library: Path, images: Images, expected: Expectation, bound: float) -> float:
    """The library's largest error, in multiples of the bound."""
    loaded = Library(library)
    logits = np.stack([loaded.run(image) for image in images.floats])
    return compare(expected.logits, logits, expected.tolerance).error_of_range / bound


def plant(
    library: bytes, program: Program, model: ExportedModel, seed: int
) -> Iterator[tuple[str, bytes]]:
    """The library with each fault, in a layer whose constants lie there plain."""
    rng = np.random.default_rng(seed)
    start = library.index(program.constants)
    layers = list(model.network.layers())
    for what in FAULTS:
        constants = np.frombuffer(program.constants, np.uint8).copy()
        for place in rng.permutation(len(layers)):
            layer = layers[place]
            at = program.constants.find(np.float32(layer.bias).tobytes())
            if at < 0 or at % 4:
                continue
            behind = at + 4 * layer.outputs
            weights = constants[behind : behind + layer.weight.nbytes]
            if what == "bias":
                bias = constants[at:behind].view(np.float32)
                bias[rng.integers(len(bias))] += np.abs(bias).max() * 10 ** rng.uniform(-3, 1)
            elif what == "panel":
                count = min(PANEL_ROWS, len(weights) // ROW_BYTES)
                rows = weights[: count * ROW_BYTES].reshape(-1, ROW_BYTES)
                rows[:] = rng.permutation(rows)
            elif isinstance(layer.arithmetic, Float32):
                weights[: len(weights) // 4 * 4].view(np.float32)[:] *= 8
            else:
                scales = layer.arithmetic.weight_scales * np.float32(layer.arithmetic.scale)
                at = program.constants.find(scales.tobytes())
                if at < 0:
                    continue
                constants[at : at + scales.nbytes].view(np.float32)[:] *= 8
            break
        content = constants.tobytes()
        if content != program.constants:
            yield what, library[:start] + content + library[start + len(content) :]


def table(results: list[Result]) -> str:
    lines = [
        "| networks | precision | libraries | refused | nearest to the bound | bounds "
        "| faults under 1 bound: found | 1 to 2 bounds: found | over 2 bounds: found |",
        "|---|---|---:|---:|---:|---|---:|---:|---:|",
    ]
    for kind in ("trained", "twin", "head", "random", "real", "all"):
        for int8 in (False, True):
            rows = [r for r in results if kind in (r.case.kind, "all") and r.case.int8 == int8]
            if not rows:
                continue
            bounds = sorted(r.bound for r in rows)
            faults = [fault for r in rows for fault in r.faults]
            cells = []
            for low, high in ((0, 1), (1, 2), (2, np.inf)):
                within = [fault for fault in faults if low < fault.cost <= high]
                cells.append(f"{sum(fault.found for fault in within)} of {len(within)}")
            lines.append(
                f"| {kind} | {'int8' if int8 else 'fp32'} | {len(rows)} "
                f"| {sum(bool(r.refused) for r in rows)} | {max(r.error for r in rows):.2f} "
                f"| {bounds[0]:.1e} to {bounds[-1]:.1e} | {' | '.join(cells)} |"
            )
    return "\n".join(lines)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else len(cases())
    end = time.monotonic() + 60 * float(sys.argv[2]) if len(sys.argv) > 2 else np.inf
    results: list[Result] = []
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        waiting = pool.imap_unordered(measure, cases()[:count])
        while len(results) < count and time.monotonic() < end:
            try:
                result = waiting.next(timeout=max(0.0, min(end - time.monotonic(), 1e6)))
            except multiprocessing.TimeoutError:
                break
            results.append(result)
            print(result, file=sys.stderr, flush=True)
    print(f"{len(results)} of {count} networks\n\n{table(results)}")


if __name__ == "__main__":
    main()
