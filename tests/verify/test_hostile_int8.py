"""Networks and images made to break 8 bits, through whole libraries: each computes its model.

The 8-bit model in ONNX Runtime, as it is written, says what is right; that model itself is held
against the float network in tests/calibration/test_hostile.py.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from levit_deploy.calibration.image_set import MIN_IMAGES, ImageSet, open_images
from levit_deploy.calibration.recipe import DEFAULT_RECIPE
from levit_deploy.deploy import Calibration, deploy
from levit_deploy.export.exported import ExportedModel
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.models.preprocessing import ORIGINAL_PREPROCESSING
from levit_deploy.models.spec import TINY
from levit_deploy.runtime.loader import Library
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.images import Images
from levit_deploy.verify.model_of import quantized_model_of
from levit_deploy.verify.onnx_runner import OnnxRunner
from tests.calibration.running import signal_to_noise_db
from tests.randomize import randomize
from tests.verify.checkpoints import with_state

State = dict[str, Tensor]
Logits = NDArray[np.float32]


@pytest.fixture(scope="module")
def random_checkpoint(tiny: Checkpoint) -> Checkpoint:
    """Every weight and statistic at random, so that none is idle."""
    return with_state(tiny, randomize(tiny.build(), seed=4).state_dict())


def deployed(
    checkpoint: Checkpoint, pictures: ImageSet, parent: Path
) -> tuple[Library, ExportedModel]:
    """A library for this machine, verified on photographs, and the model that it computes."""
    toolchain = find_toolchain(get_target("host"))
    calibration = Calibration(pictures, DEFAULT_RECIPE)
    artifact = deploy(checkpoint, toolchain, parent, calibration=calibration).artifact
    model = quantized_model_of(artifact, checkpoint)
    assert model is not None
    return Library(artifact.folder), model


def in_onnxruntime(model: ExportedModel, images: Logits) -> Logits:
    with OnnxRunner(model, as_written=True) as runner:
        return runner.infer(Images(np.zeros(0, np.uint8), images, "test"))


def by_library(library: Library, images: Logits) -> Logits:
    return np.stack([library.run(image) for image in images])


def assert_computes(library: Library, model: ExportedModel, images: Logits) -> None:
    expected, got = in_onnxruntime(model, images), by_library(library, images)
    assert np.isfinite(got).all()
    assert signal_to_noise_db(expected, got) > 35
    assert (got.argmax(axis=1) == expected.argmax(axis=1)).all()


def one_loud_channel(state: State) -> None:
    """A thousand times the others, in the stream, in a hidden layer and in the stem."""
    for place in ("blocks.0.m.proj.1.bn", "blocks.1.m.0.bn", "patch_embed.6.bn"):
        state[f"{place}.running_var"][3] = 1e-6
        state[f"{place}.bias"][3] *= 1000


def constant_channels(state: State) -> None:
    """The same everywhere, half of them zero."""
    for name in [name.removesuffix(".running_var") for name in state if "running_var" in name]:
        state[f"{name}.weight"][:4] = 0
        state[f"{name}.bias"][:2] = 0


def silent_weights(state: State) -> None:
    """All weights of one output channel are zero, and all of one layer."""
    state["blocks.1.m.0.c.weight"][5] = 0
    state["blocks.1.m.2.c.weight"][:] = 0


@pytest.mark.parametrize("spoil", [one_loud_channel, constant_channels, silent_weights])
def test_hostile_weights(
    spoil: Callable[[State], None],
    random_checkpoint: Checkpoint,
    pictures: ImageSet,
    tmp_path: Path,
):
    state = {name: tensor.clone() for name, tensor in random_checkpoint.state.items()}
    spoil(state)
    spoiled = with_state(random_checkpoint, state)
    library, model = deployed(spoiled, pictures, tmp_path)
    assert_computes(library, model, random_images(8))


@pytest.mark.parametrize("times", [10, 1e3, 1e6])
def test_images_beyond_what_was_calibrated(times: float, ordinary: tuple[Library, ExportedModel]):
    """Every 8-bit tensor saturates, on both sides; nothing wraps around."""
    library, model = ordinary
    assert_computes(library, model, np.float32(times) * random_images(4))


@pytest.fixture(scope="module")
def ordinary(
    random_checkpoint: Checkpoint, pictures: ImageSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Library, ExportedModel]:
    return deployed(random_checkpoint, pictures, tmp_path_factory.mktemp("ordinary"))


def test_pictures_of_one_colour(random_checkpoint: Checkpoint, tmp_path: Path):
    """Right for that colour and, as all else saturates, as wrong as its model for any other."""
    size, colour = TINY.image_size, (124, 116, 104)
    flat = np.full((MIN_IMAGES, size, size, 3), colour, np.uint8)
    np.savez(tmp_path / "flat.npz", images=flat)
    pictures = open_images(str(tmp_path / "flat.npz"), ORIGINAL_PREPROCESSING, size)
    library, model = deployed(random_checkpoint, pictures, tmp_path)
    assert_computes(library, model, random_images(4))
    normal = (np.array(colour) / 255 - model.normalization.mean) / model.normalization.std
    same = np.broadcast_to(normal[:, None, None], (1, 3, size, size)).astype(np.float32)
    assert_computes(library, model, same)


def random_images(count: int) -> Logits:
    shape = (count, 3, TINY.image_size, TINY.image_size)
    return np.random.default_rng(7).standard_normal(shape, np.float32)
