"""The accuracy of 8 bits, ours beside ONNX Runtime's and NNCF's: the figures of a document.

    python -m benchmarks.quantization --output docs/quantization.md     # everything, an hour
    python -m benchmarks.quantization --methods levit-deploy --sigmas 0 2 --images 500
    python -m benchmarks.quantization --methods --output docs/quantization.md      # no new figure

The demonstration net and its hostile twins (sigma: levit_deploy/export/hostile_twin.py), calibrated
on the 512 images in the package, tested on labelled CIFAR-10 images that it never saw. What runs
how is said in benchmarks/quantizers.py; methods whose packages are missing are left out. Each
result is written to the record at once, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quantizers import (
    LIBRARY,
    METHODS,
    MODEL,
    OTHER_RECIPES,
    OURS,
    PEERS,
    Classify,
    Network,
)
from levit_deploy.calibration.image_set import open_images
from levit_deploy.export.export_model import export_model
from levit_deploy.export.hostile_twin import hostile_twin
from levit_deploy.models.checkpoint import weights_digest
from levit_deploy.models.images import model_input
from levit_deploy.models.spec import get_spec
from levit_deploy.models.weights import DEMO, load_weights

RECORD = Path(__file__).with_name("quantization.json")
TEST_IMAGES = Path(__file__).parent.parent / "tests" / "data" / "val_2000.npz"
SPEC = get_spec("levit_128s")
SIGMAS = (0.0, 1.0, 1.5, 2.0)  # 0 is the net itself

FLOAT = "fp32 PyTorch"
FLOAT_CHUNK = 32  # images at once
PACKAGES = {"levit-deploy": "levit_deploy", "ONNX Runtime": "onnxruntime", "NNCF": "nncf"}

Logits = NDArray[np.float64]  # (images, classes)


@dataclass(frozen=True)
class Result:
    """How close `method` is to `reference`, on the network `sigma`.

    `top1`: right answers of the method, `reference_top1`: of the reference, `agreement`: the same
    answer; percent of the images. `sqnr_db`: of all logits together. `largest_error`: of a logit,
    as a fraction of the reference's range. `version`: of the package behind the method.
    """

    method: str
    reference: str
    sigma: float
    images: int
    top1: float
    reference_top1: float
    agreement: float
    sqnr_db: float
    largest_error: float
    version: str


COMPARISONS = [(LIBRARY, MODEL), *((method, FLOAT) for method in METHODS)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="*", default=[""], help="beginnings of names")
    parser.add_argument("--sigmas", nargs="+", type=float, default=SIGMAS)
    parser.add_argument("--images", type=int, default=2000, help="test images")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--output", type=Path, help="the document [default: stdout]")
    options = parser.parse_args()
    results = load(options.record)
    for sigma in options.sigmas:
        known = [(r.method, r.reference) for r in results if r.sigma == sigma]
        wanted = [
            pair
            for pair in COMPARISONS
            if pair[0].startswith(tuple(options.methods)) and pair not in known
        ]
        for result in measure(sigma, wanted, options.images):
            print(result, flush=True)
            results.append(result)
            save(results, options.record)
    if options.output:
        options.output.write_text(document(results))
    else:
        print(document(results), end="")


def measure(sigma: float, comparisons: Sequence[tuple[str, str]], count: int) -> Iterator[Result]:
    """Of each (method, reference); methods whose packages are missing are left out."""
    if not comparisons:
        return
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as folder:
        network = build_network(sigma, Path(folder))

        @cache
        def logits(method: str) -> Logits:
            return classify_all(METHODS[method](network), count)

        for method, reference in comparisons:
            expected = float_logits(count) if reference == FLOAT else logits(reference)
            try:
                yield compare(method, reference, sigma, expected, logits(method))
            except ModuleNotFoundError as error:
                print(f"{method}: left out, {error}")


@cache
@torch.inference_mode()
def float_logits(count: int) -> Logits:
    """PyTorch's, of the net itself: those of a twin differ from them by rounding only."""
    module = load_weights(SPEC, DEMO).build().eval()
    images = test_set()[0][:count]
    chunks = (images[start : start + FLOAT_CHUNK] for start in range(0, count, FLOAT_CHUNK))
    rows = [module(torch.from_numpy(model_input(chunk, SPEC))) for chunk in chunks]
    return torch.cat(rows).numpy().astype(np.float64)


def classify_all(classify: Classify, count: int) -> Logits:
    """The first test images, one at a time."""
    images = (model_input(image[None], SPEC) for image in test_set()[0][:count])
    return np.concatenate([classify(image) for image in images]).astype(np.float64)


def compare(method: str, reference: str, sigma: float, expected: Logits, got: Logits) -> Result:
    labels = test_set()[1][: len(expected)]
    error = np.abs(expected - got)
    package = next(package for name, package in PACKAGES.items() if method.startswith(name))
    return Result(
        method=method,
        reference=reference,
        sigma=sigma,
        images=len(expected),
        top1=percent(got.argmax(axis=1) == labels),
        reference_top1=percent(expected.argmax(axis=1) == labels),
        agreement=percent(got.argmax(axis=1) == expected.argmax(axis=1)),
        sqnr_db=round(float(10 * np.log10(np.square(expected).sum() / np.square(error).sum())), 2),
        largest_error=float(f"{error.max() / np.ptp(expected):.2g}"),
        version=str(import_module(package).__version__),
    )


def build_network(sigma: float, folder: Path) -> Network:
    """The demonstration net, or a twin of it."""
    checkpoint = load_weights(SPEC, DEMO)
    if sigma > 0:
        tensors = hostile_twin(checkpoint.build(), sigma, seed=0).state_dict()
        state = {name: tensors[name] for name in checkpoint.state}
        checkpoint = replace(checkpoint, state=state, digest=weights_digest(state))
    exported = export_model(checkpoint.build(), name=SPEC.name, weights_digest=checkpoint.digest)
    pictures = open_images(DEMO, checkpoint.preprocessing, exported.image_size)
    return Network(checkpoint, exported, pictures, folder)


@cache
def test_set() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    with np.load(TEST_IMAGES) as data:
        return data["images"], data["labels"]


def percent(hits: NDArray[np.bool_]) -> float:
    return round(100 * float(hits.mean()), 2)


def load(record: Path) -> list[Result]:
    return [Result(**row) for row in json.loads(record.read_text())] if record.exists() else []


def save(results: Sequence[Result], record: Path) -> None:
    order = list(METHODS)
    rows = sorted(results, key=lambda r: (r.sigma, order.index(r.method), r.reference))
    record.write_text("[\n " + ",\n ".join(json.dumps(asdict(r)) for r in rows) + "\n]\n")


def document(results: Sequence[Result]) -> str:
    counts = sorted({result.images for result in results})
    lines = [
        "# Quantization",
        "",
        "Made by `python -m benchmarks.quantization --output docs/quantization.md`, which explains",
        f"itself, from figures in `benchmarks/{RECORD.name}`. The demonstration net, LeViT-128S,",
        "calibrated on 512 training images, is tested on "
        f"{' or '.join(map(str, counts))} labelled images that it never",
        "saw. A twin is the same function with a residual stream that is hard to quantize: its",
        "channels are multiplied by exp(sigma N(0, 1)). All methods calibrate on the same images.",
        "",
        *accuracy(results),
        *fidelity(results),
        "## Beside others",
        "",
        "Same answers as fp32 PyTorch, and the signal-to-noise ratio of the logits.",
        "",
        *matrix([*OURS, *PEERS], results),
        f"Versions: {versions(results)}. ONNX Runtime quantizes per channel; u8s8 are the types of",
        "activations and weights.",
        "",
        "## Other recipes",
        "",
        *matrix([LIBRARY, *OTHER_RECIPES], results),
    ]
    return "\n".join(lines).rstrip() + "\n"


def accuracy(results: Sequence[Result]) -> Iterator[str]:
    yield from ["## The library", ""]
    yield "| network | top-1, fp32 PyTorch | top-1, int8 library | same answer | SQNR |"
    yield "|---|---|---|---|---|"
    for r in results:
        if (r.method, r.reference) == (LIBRARY, FLOAT):
            cells = f"{r.reference_top1:.2f} % | {r.top1:.2f} % | {r.agreement:.2f} %"
            yield f"| {network_name(r.sigma)} | {cells} | {r.sqnr_db:.1f} dB |"
    yield ""


def fidelity(results: Sequence[Result]) -> Iterator[str]:
    yield "Against its own 8-bit ONNX model in ONNX Runtime, optimisations off:"
    yield from ["", "| network | same answer | largest error, of the logits' range | SQNR |"]
    yield "|---|---|---|---|"
    for r in results:
        if (r.method, r.reference) == (LIBRARY, MODEL):
            cells = f"{r.agreement:.2f} % | {r.largest_error:.1e} | {r.sqnr_db:.1f} dB"
            yield f"| {network_name(r.sigma)} | {cells} |"
    yield ""


def matrix(methods: Sequence[str], results: Sequence[Result]) -> Iterator[str]:
    """Agreement with fp32 and SQNR, by method and network."""
    yield f"| method | {' | '.join(map(network_name, SIGMAS))} |"
    yield "|---" * (len(SIGMAS) + 1) + "|"
    for method in methods:
        found = {r.sigma: r for r in results if (r.method, r.reference) == (method, FLOAT)}
        cells = [
            f"{found[sigma].agreement:.2f} %, {found[sigma].sqnr_db:.1f} dB"
            if sigma in found
            else "-"
            for sigma in SIGMAS
        ]
        yield f"| {method} | {' | '.join(cells)} |"
    yield ""


def network_name(sigma: float) -> str:
    return f"twin, sigma {sigma:g}" if sigma else "the net itself"


def versions(results: Sequence[Result]) -> str:
    found = {
        f"{name} {result.version}"
        for result in results
        for name in PACKAGES
        if result.method.startswith(name)
    }
    return ", ".join(sorted(found))


if __name__ == "__main__":
    main()
