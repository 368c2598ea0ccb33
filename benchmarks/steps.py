"""How far 8-bit libraries are from their own 8-bit models: what the tolerance STEPS rests on.

    python -m benchmarks.steps              # some minutes
    python -m benchmarks.steps tiny         # networks whose name holds this

Each network is calibrated on training images in the package, compiled for this machine, and held
on test images against its 8-bit model in ONNX Runtime, optimisations off. `together`: the largest
error of a logit as a fraction of the range of all logits, `alone`: of those of its image, the
worst image. Beside it, what 8 bits cost against PyTorch: `rounding`, the largest error of the 8-bit
model, likewise together; signal to noise and same answers of the library.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.quantization import TEST_IMAGES
from benchmarks.quantizers import LIBRARY, METHODS, MODEL, Network
from levit_deploy.calibration.image_set import open_images
from levit_deploy.errors import DeployError
from levit_deploy.export.export_model import export_model
from levit_deploy.models.checkpoint import Checkpoint, load_checkpoint
from levit_deploy.models.demo import DEMO_WEIGHTS
from levit_deploy.models.preprocessing import DEMO_PREPROCESSING
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import TINY, ModelSpec, get_spec
from levit_deploy.models.weights import DEMO
from levit_deploy.verify.comparison import compare
from levit_deploy.verify.images import real_images
from levit_deploy.verify.tolerance import STEPS
from levit_deploy.verify.torch_runner import TorchRunner
from tests.outlier_channels import with_outlier_channels
from tests.randomize import randomize

DEMO_NET = get_spec("levit_128s")
TINY_WEIGHTS = TEST_IMAGES.with_name("levit_tiny_cifar10.safetensors")


def networks(folder: Path) -> Iterator[tuple[str, Checkpoint, int, int]]:
    """(name, weights, images to calibrate on, test images), each written to `folder` or read."""

    def stored(name: str, spec: ModelSpec, state: dict[str, Tensor]) -> Checkpoint:
        file = folder / f"{name}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, file)
        return load_checkpoint(file, spec)

    demo = load_checkpoint(DEMO_WEIGHTS, DEMO_NET)
    yield "levit_128s", demo, 512, 500
    for sigma in (1.0, 2.0):
        outliers = with_outlier_channels(demo.build(), sigma, seed=0).state_dict()
        name = f"levit_128s, outlier channels of sigma {sigma:g}"
        yield name, stored(name, DEMO_NET, outliers), 512, 500
    yield "tiny", load_checkpoint(TINY_WEIGHTS, TINY), 512, 500
    for classes in (10, 3):
        for seed in range(4):
            spec = replace(TINY, classes=classes)
            weights = randomize(Levit(spec), seed).state_dict()
            name = f"tiny, random weights, {classes} classes, seed {seed}"
            yield name, stored(name, TINY, weights), 128, 100
    for model in ("levit_128", "levit_384"):
        spec = get_spec(model)
        name = f"{model}, random weights"
        yield name, stored(name, spec, randomize(Levit(spec), 0).state_dict()), 32, 16


def measure(checkpoint: Checkpoint, pictures: int, count: int) -> str:
    spec = checkpoint.spec
    exported = export_model(checkpoint.build(), name=spec.name, weights_digest=checkpoint.digest)
    calibration = open_images(DEMO, DEMO_PREPROCESSING, spec.image_size, maximum=pictures)
    images = real_images(spec, count)
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as folder:
        network = Network(checkpoint, exported, calibration, Path(folder))
        model, library = (
            np.concatenate([classify(image[None]) for image in images.floats])
            for classify in (METHODS[MODEL](network), METHODS[LIBRARY](network))
        )
    float_logits = TorchRunner(checkpoint.build()).infer(images)
    together = compare(model, library, STEPS).error_of_range
    alone = max(compare(model[[i]], library[[i]], STEPS).error_of_range for i in range(len(images)))
    rounding = compare(float_logits, model, STEPS).error_of_range
    noise = np.square(float_logits.astype(np.float64) - library).sum()
    sqnr_db = 10 * np.log10(np.square(float_logits.astype(np.float64)).sum() / noise)
    same = np.mean(library.argmax(axis=1) == float_logits.argmax(axis=1))
    return (
        f"together {together:.1e}  alone {alone:.1e}  "
        f"rounding {rounding:.1e}  float {sqnr_db:.1f} dB {same:.1%}"
    )


def main() -> None:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    with tempfile.TemporaryDirectory(prefix="levit-deploy-") as folder:
        for name, *case in networks(Path(folder)):
            if wanted in name:
                try:
                    found = measure(*case)
                except DeployError as error:  # the self test holds to the tolerance, too
                    found = error.message
                print(f"{name:40} {found}", flush=True)


if __name__ == "__main__":
    main()
