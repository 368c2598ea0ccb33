"""What 8 bits cost, by the library itself: on labelled photographs, against float and its model."""

from pathlib import Path

import numpy as np
import pytest

from levit_deploy.calibration.image_set import open_images
from levit_deploy.calibration.recipe import DEFAULT_RECIPE
from levit_deploy.deploy import Calibration, deploy
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.models.demo import DemoSplit, demo_images
from levit_deploy.models.images import normalize
from levit_deploy.models.pictures import model_sized
from levit_deploy.models.preprocessing import DEMO_PREPROCESSING
from levit_deploy.models.spec import get_spec
from levit_deploy.models.weights import DEMO, load_weights
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.targets.table import HOST, get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.comparison import Logits
from levit_deploy.verify.images import Function, Images
from levit_deploy.verify.library_runner import LibraryRunner
from levit_deploy.verify.model_of import quantized_model_of
from levit_deploy.verify.onnx_runner import OnnxRunner
from levit_deploy.verify.torch_runner import TorchRunner
from tests.calibration.running import signal_to_noise_db
from tests.outlier_channels import with_outlier_channels
from tests.verify.checkpoints import resized_as, with_state

IMAGES = 500


def compile_int8(checkpoint: Checkpoint, pictures: int, parent: Path) -> Artifact:
    """For this machine, calibrated on training images in the package."""
    size = checkpoint.spec.image_size
    images = open_images(DEMO, DEMO_PREPROCESSING, size, maximum=pictures)
    calibration = Calibration(images, DEFAULT_RECIPE)
    toolchain = find_toolchain(get_target(HOST))
    checkpoint = resized_as(checkpoint, DEMO_PREPROCESSING)
    return deploy(checkpoint, toolchain, parent, calibration=calibration).artifact


def check(artifact: Artifact, checkpoint: Checkpoint, least_db: float, least_same: float) -> None:
    """At least so close to float; as its own model, and as right as float is on the labels."""
    spec, pictures = checkpoint.spec, demo_images(DemoSplit.TEST).images[:IMAGES]
    rgb8 = np.stack([model_sized(p, DEMO_PREPROCESSING, spec.image_size) for p in pictures])
    images = Images(rgb8, normalize(rgb8, spec.normalization), "test images")
    model = quantized_model_of(artifact, checkpoint)
    assert model is not None
    got = LibraryRunner(artifact, Function.RUN).infer(images)
    with OnnxRunner(model, as_written=True) as runner:
        expected = runner.infer(images)
    float_logits = TorchRunner(checkpoint.build()).infer(images)

    assert same_answers(got, expected) >= 0.995
    assert signal_to_noise_db(float_logits, got) > least_db
    assert same_answers(got, float_logits) >= least_same
    labels = demo_images(DemoSplit.TEST).labels
    right, float_right = (np.mean(x.argmax(axis=1) == labels) for x in (got, float_logits))
    assert float_right > 0.6
    assert float_right - right < 1 - least_same


def same_answers(one: Logits, other: Logits) -> float:
    return float(np.mean(one.argmax(axis=1) == other.argmax(axis=1)))


def test_the_tiny_net_keeps_its_answers(tiny: Checkpoint, tmp_path: Path):
    check(compile_int8(tiny, 128, tmp_path), tiny, least_db=33, least_same=0.98)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.0, 1.0, 1.5, 2.0])
def test_the_demonstration_net_with_outlier_channels_too_keeps_its_answers(
    sigma: float, tmp_path: Path
):
    checkpoint = load_weights(get_spec("levit_128s"), DEMO)
    if sigma > 0:
        outliers = with_outlier_channels(checkpoint.build(), sigma, seed=0)
        checkpoint = with_state(checkpoint, outliers.state_dict())
    check(compile_int8(checkpoint, 512, tmp_path), checkpoint, least_db=38, least_same=0.988)
