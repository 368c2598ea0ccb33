"""The accuracy of 8 and 16 bits, ours beside ONNX Runtime's and NNCF's: the figures of a document.

    python -m benchmarks.quantization --output docs/quantization.md     # everything, an hour
    python -m benchmarks.quantization --methods levit-deploy --sigmas 0 2 --images 500
    python -m benchmarks.quantization --methods --output docs/quantization.md   # no new figure

The demonstration net and its outlier-channel models (sigma: tests/outlier_channels.py), calibrated
on the 512 images in the package, tested on labelled CIFAR-10 images that it never saw. What runs
how is said in benchmarks/quantizers.py; methods whose packages are missing are left out. Each
result is written to the record at once, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quantization_record import FLOAT, RECORD, Result, load, save
from benchmarks.quantization_report import PACKAGES, SIGMAS, document
from benchmarks.quantizers import LIBRARY, METHODS, MODEL, Classify, Network
from levit_deploy.calibration.image_set import open_images
from levit_deploy.export.export_model import export_model
from levit_deploy.models.checkpoint import weights_digest
from levit_deploy.models.images import model_input
from levit_deploy.models.spec import get_spec
from levit_deploy.models.weights import DEMO, load_weights
from tests.outlier_channels import with_outlier_channels

TEST_IMAGES = Path(__file__).parent.parent / "tests" / "data" / "val_2000.npz"
SPEC = get_spec("levit_128s")

FLOAT_CHUNK = 32  # images at once

Logits = NDArray[np.float64]  # (images, classes)


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
    """PyTorch's, of the net itself: those of the others differ from them by rounding only."""
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
    """The demonstration net, with outlier channels if sigma is not 0."""
    checkpoint = load_weights(SPEC, DEMO)
    if sigma > 0:
        tensors = with_outlier_channels(checkpoint.build(), sigma, seed=0).state_dict()
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


if __name__ == "__main__":
    main()
