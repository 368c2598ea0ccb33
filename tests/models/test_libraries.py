"""Checkpoints written by timm and transformers give those libraries' own outputs here.

What the files say is all there is: the network is read from them.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from levit_deploy.models.checkpoint import Checkpoint, load_checkpoint
from levit_deploy.models.demo import DemoSplit, demo_images
from levit_deploy.models.images import model_input
from levit_deploy.models.key_names import Origin
from levit_deploy.models.spec import FAMILY, TINY, Activation, ModelSpec
from tests.models.libraries import timm_model, transformers_config, transformers_model
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
timms = pytest.mark.parametrize("save", [timm_linear, timm_conv], ids=lambda save: save.__name__)
with_and_without_teacher = pytest.mark.parametrize(
    "distilled", [True, False], ids=["distilled", "single_head"]
)


def check(spec: ModelSpec, save: Save, folder: Path, asked: ModelSpec | None = None) -> Checkpoint:
    theirs, path = save(spec, folder)
    checkpoint = load_checkpoint(path, asked)
    assert checkpoint.origin is ORIGINS[save]
    assert replace(checkpoint.spec, name="", normalization=spec.normalization) == (
        replace(spec, name="")
    )
    compare(checkpoint, theirs)
    return checkpoint


def compare(checkpoint: Checkpoint, theirs: nn.Module) -> None:
    spec = checkpoint.spec
    pixels = torch.from_numpy(model_input(demo_images(DemoSplit.TEST).images[:6], TINY))
    size = (spec.image_size, spec.image_size)
    image = 3 * nn.functional.interpolate(pixels, size, mode="bilinear")[:, : spec.in_chans]
    # Random deep nets amplify rounding, on some pictures by 1e8: in float64 little is left of it.
    image = image.double()
    with torch.no_grad():
        expected, ours = theirs.double()(image), checkpoint.build().double()(image)
    span = expected.max() - expected.min()
    assert (ours - expected).abs().max() <= 1e-6 * span
    # The images tell: otherwise any weights before the heads would pass.
    assert (expected.amax(0) - expected.amin(0)).max() >= 1e-2 * span


@every_library
@with_and_without_teacher
@pytest.mark.parametrize("image_size", [64, 112])
def test_tiny(save: Save, distilled: bool, image_size: int, tmp_path: Path) -> None:
    check(replace(TINY, distilled=distilled, image_size=image_size), save, tmp_path)


@every_library
def test_ends_differ_from_those_asked_for(save: Save, tmp_path: Path) -> None:
    asked = replace(TINY, image_size=16, classes=1)
    assert check(TINY, save, tmp_path, asked).spec.name == TINY.name


@every_library
@pytest.mark.parametrize("in_chans", [1, 3])
def test_one_channel_and_no_head(save: Save, in_chans: int, tmp_path: Path) -> None:
    check(replace(TINY, in_chans=in_chans, classes=0, distilled=False), save, tmp_path)


@timms
@pytest.mark.parametrize("activation", list(Activation))
def test_activation_of_the_model_asked_for(
    save: Save, activation: Activation, tmp_path: Path
) -> None:
    """A state_dict does not say it; the name of the model does."""
    spec = replace(TINY, activation=activation)
    checkpoint = check(spec, save, tmp_path, spec)
    assert checkpoint.card.sources["activation"] == "levit_tiny, as asked for"


@timms
def test_stem_of_stride_8(save: Save, tmp_path: Path) -> None:
    spec = replace(TINY, channels=(64, 72, 80), stem_stride=8, image_size=56, distilled=False)
    check(spec, save, tmp_path)


@pytest.mark.parametrize(
    "sizes",
    [
        {"key_dim": [8, 16, 24]},
        {"mlp_ratio": [4, 1, 3]},
        {"attention_ratio": [1, 3, 4]},
        {"depths": [3, 1, 2], "hidden_sizes": [40, 44, 52], "num_attention_heads": [1, 5, 7]},
        {"patch_size": 32, "image_size": 192},
        {"mlp_ratio": [2, 0, 2]},
    ],
    ids=lambda sizes: next(iter(sizes)),
)
def test_transformers_of_any_sizes(sizes: dict[str, object], tmp_path: Path) -> None:
    theirs = transformers_model(TINY, transformers_config(TINY, **sizes))
    randomize(theirs, seed=4).inner.save_pretrained(tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.spec.name == "levit_custom"
    compare(checkpoint, theirs)


@every_library
def test_levit_128s(save: Save, tmp_path: Path) -> None:
    checkpoint = check(FAMILY["levit_128s"], save, tmp_path)
    assert checkpoint.spec.name == "levit_128s"


@pytest.mark.slow
@every_library
@with_and_without_teacher
@pytest.mark.parametrize("name", FAMILY)
def test_family(name: str, save: Save, distilled: bool, tmp_path: Path) -> None:
    """timm's own variants take two heads by its class alone; transformers cannot build them."""
    spec = replace(FAMILY[name], distilled=distilled)
    if save is transformers_folder and spec.activation is not Activation.HARD_SWISH:
        pytest.skip("transformers knows hardswish and stride 16 alone")
    assert check(spec, save, tmp_path).spec.name == name


@pytest.mark.parametrize("name", FAMILY)
def test_family_is_what_timm_builds(name: str) -> None:
    """Every size, activation and number of heads, against timm's registry."""
    with torch.device("meta"):
        state = timm_model(FAMILY[name], conv=False).state_dict()
    assert ("head_dist.linear.weight" in state) is FAMILY[name].distilled
