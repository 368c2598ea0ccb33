"""Checkpoints written by timm and transformers give those libraries' own outputs here."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from levit_deploy.models.checkpoint import load_checkpoint
from levit_deploy.models.demo import DemoSplit, demo_images
from levit_deploy.models.images import model_input
from levit_deploy.models.key_names import Origin
from levit_deploy.models.spec import FAMILY, TINY, ModelSpec
from tests.models.libraries import timm_model, transformers_model
from tests.randomize import randomize


def timm_linear(spec: ModelSpec, folder: Path) -> tuple[nn.Module, Path]:
    module = randomize(timm_model(spec, conv=False), seed=1)
    save_file(module.state_dict(), folder / "model.safetensors")
    return module, folder / "model.safetensors"


def timm_conv(spec: ModelSpec, folder: Path) -> tuple[nn.Module, Path]:
    module = randomize(timm_model(spec, conv=True), seed=2)
    torch.save(module.state_dict(), folder / "pytorch_model.bin")
    return module, folder / "pytorch_model.bin"


def transformers_folder(spec: ModelSpec, folder: Path) -> tuple[nn.Module, Path]:
    module = randomize(transformers_model(spec), seed=3)
    module.inner.save_pretrained(folder / "saved")
    return module, folder / "saved"


Save = Callable[[ModelSpec, Path], tuple[nn.Module, Path]]
ORIGINS: dict[Save, Origin] = {
    timm_linear: Origin.TIMM,
    timm_conv: Origin.TIMM,
    transformers_folder: Origin.TRANSFORMERS,
}
every_library = pytest.mark.parametrize("save", ORIGINS, ids=lambda save: save.__name__)
with_and_without_teacher = pytest.mark.parametrize(
    "distilled", [True, False], ids=["distilled", "single_head"]
)


def check(spec: ModelSpec, save: Save, folder: Path) -> None:
    theirs, path = save(spec, folder)
    checkpoint = load_checkpoint(path, replace(spec, image_size=16, classes=1, distilled=True))
    assert checkpoint.origin is ORIGINS[save]
    assert checkpoint.spec == spec
    image = torch.from_numpy(model_input(demo_images(DemoSplit.TEST).images[:2], spec))
    with torch.no_grad():
        expected, ours = theirs(image), checkpoint.build()(image)
    span = expected.max() - expected.min()
    assert (ours - expected).abs().max() <= 1e-4 * span
    # The images tell: otherwise any weights before the heads would pass.
    assert (expected[0] - expected[1]).abs().max() >= 1e-2 * span


@every_library
@with_and_without_teacher
@pytest.mark.parametrize("image_size", [64, 112])
def test_tiny(save: Save, distilled: bool, image_size: int, tmp_path: Path) -> None:
    check(replace(TINY, distilled=distilled, image_size=image_size), save, tmp_path)


@every_library
def test_levit_128s(save: Save, tmp_path: Path) -> None:
    check(FAMILY["levit_128s"], save, tmp_path)


@pytest.mark.slow
@every_library
@with_and_without_teacher
@pytest.mark.parametrize("name", FAMILY)
def test_family(name: str, save: Save, distilled: bool, tmp_path: Path) -> None:
    check(replace(FAMILY[name], distilled=distilled), save, tmp_path)
