"""ONNX files that torch's exporters wrote of timm's, transformers' and the original networks."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from levit_deploy.deploy import deploy
from levit_deploy.errors import DeployError
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.models.key_names import Origin
from levit_deploy.models.preprocessing import TRANSFORMERS_PREPROCESSING
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import FAMILY, TINY, Activation, ModelSpec
from levit_deploy.models.weights import load_weights
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from tests.models.libraries import timm_model, transformers_model, transformers_processor
from tests.randomize import randomize

SILU = replace(TINY, activation=Activation.SILU)
RELU = replace(TINY, activation=Activation.RELU, distilled=False, in_chans=1)
GELU = replace(TINY, activation=Activation.GELU, image_size=112)
FEATURES = replace(TINY, classes=0, distilled=False)
ANY_BATCH = {"input_names": ["image"], "dynamic_axes": {"image": {0: "batch"}}}


def export(module: nn.Module, spec: ModelSpec, file: Path, **options: object) -> Path:
    """As `torch.onnx.export` does, by default without dynamo: then nothing else is needed."""
    image = torch.zeros(1, spec.in_chans, spec.image_size, spec.image_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (image,), file, **{"dynamo": False, **options})
    return file


def check(checkpoint: Checkpoint, theirs: nn.Module, spec: ModelSpec) -> None:
    """The same network, whose logits are the exported module's."""
    same = replace(spec, name="", normalization=checkpoint.spec.normalization)
    assert replace(checkpoint.spec, name="") == same
    shape = (4, spec.in_chans, spec.image_size, spec.image_size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, got = theirs(images), checkpoint.build()(images)
    span = expected.max() - expected.min()
    assert (got - expected).abs().max() <= 1e-4 * span
    assert (expected.amax(0) - expected.amin(0)).max() >= 1e-2 * span
    assert checkpoint.foreign is not None
    by_file = torch.from_numpy(checkpoint.foreign.logits(images.numpy()))
    assert (by_file - expected).abs().max() <= 1e-4 * span


@pytest.mark.parametrize(
    ("module", "spec", "options"),
    [
        pytest.param(timm_model(TINY, conv=False), TINY, ANY_BATCH, id="timm, any batch"),
        pytest.param(timm_model(SILU, conv=True), SILU, {"opset_version": 13}, id="timm conv"),
        pytest.param(transformers_model(TINY), TINY, {"opset_version": 17}, id="transformers"),
        pytest.param(Levit(GELU), GELU, {}, id="original"),
        pytest.param(Levit(TINY), TINY, {"opset_version": 13}, id="hardswish as five nodes"),
        pytest.param(
            timm_model(RELU, conv=False),
            RELU,
            {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE},
            id="timm, nothing folded",
        ),
        pytest.param(timm_model(FEATURES, conv=False), FEATURES, {}, id="without a head"),
    ],
)
def test_exported(
    module: nn.Module, spec: ModelSpec, options: dict[str, object], tmp_path: Path
) -> None:
    file = export(randomize(module, seed=1), spec, tmp_path / "a.onnx", **options)
    checkpoint = load_weights(None, str(file))
    check(checkpoint, module, spec)
    assert checkpoint.origin is Origin.ONNX
    assert {"preprocessing", "mean", "std"} <= set(checkpoint.card.assumed)
    assert checkpoint.card.sources["activation"] == "the graph"


@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="no onnxscript")
@pytest.mark.parametrize("conv", [False, True])
def test_exported_by_dynamo(conv: bool, tmp_path: Path) -> None:
    """Its weights lie beside the file."""
    module = randomize(timm_model(TINY, conv=conv), seed=1)
    check(
        load_weights(None, str(export(module, TINY, tmp_path / "a.onnx", dynamo=True))),
        module,
        TINY,
    )


@pytest.mark.slow
@pytest.mark.parametrize("conv", [False, True])
def test_levit_128s(conv: bool, tmp_path: Path) -> None:
    spec = FAMILY["levit_128s"]
    module = randomize(timm_model(spec, conv=conv), seed=1)
    checkpoint = load_weights(spec, str(export(module, spec, tmp_path / "a.onnx")))
    check(checkpoint, module, spec)
    assert checkpoint.spec.name == "levit_128s"


def test_a_folder_as_optimum_writes_it(tmp_path: Path) -> None:
    module = randomize(transformers_model(TINY), seed=2)
    module.inner.config.id2label = {n: f"animal {n}" for n in range(10)}
    module.inner.config.save_pretrained(tmp_path)
    transformers_processor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_mean=[0.5] * 3
    ).save_pretrained(tmp_path)
    export(module, TINY, tmp_path / "model.onnx", **ANY_BATCH)
    checkpoint = load_weights(None, str(tmp_path))
    check(checkpoint, module, TINY)
    card = checkpoint.card
    assert card.origin is Origin.TRANSFORMERS
    assert card.mean == (0.5, 0.5, 0.5)
    assert card.labels[7] == "animal 7"
    assert replace(card.preprocessing, side=256, crop=224) == TRANSFORMERS_PREPROCESSING


def test_features_of_a_file_with_heads(tmp_path: Path) -> None:
    module = randomize(timm_model(TINY, conv=False), seed=3)
    file = export(module, TINY, tmp_path / "a.onnx")
    checkpoint = load_weights(None, str(file), features=True)
    assert checkpoint.digest != load_weights(None, str(file)).digest
    module.head = module.head_dist = nn.Identity()
    check(checkpoint, module, FEATURES)


class Behind(nn.Module):
    """A LeViT and something that is none."""

    def __init__(self, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]):
        super().__init__()
        self.inner, self.before, self.after = timm_model(TINY, conv=False), before, after

    def forward(self, image: Tensor) -> Tensor:
        return self.after(self.inner(self.before(image)))


def same(x: Tensor) -> Tensor:
    return x


def approximate_gelu() -> nn.Module:
    module = timm_model(SILU, conv=False)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.SiLU):
                setattr(parent, name, nn.GELU(approximate="tanh"))
    return module


@pytest.mark.parametrize(
    ("module", "refusal"),
    [
        (lambda: Behind(same, lambda x: x.softmax(-1)), "the Softmax node .* is not the mean of"),
        (lambda: Behind(lambda x: x / 2 - 1, same), "the Sub node .* changes the picture"),
        (lambda: Behind(lambda x: x.cumsum(3), same), "the CumSum node .* is no part of one"),
        (approximate_gelu, "node .* ends a function that is none of hard_swish, silu, relu, gelu"),
        (lambda: Behind(lambda x: x.transpose(2, 3), same), "differs from it by"),
    ],
    ids=["softmax", "normalised inside", "another operator", "activation", "another order"],
)
def test_what_is_no_levit_is_refused(
    module: Callable[[], nn.Module], refusal: str, tmp_path: Path
) -> None:
    file = export(randomize(module(), seed=4), TINY, tmp_path / "a.onnx")
    with pytest.raises(DeployError, match=refusal):
        load_weights(None, str(file))


def test_a_bias_that_is_not_its_offsets_is_refused(tmp_path: Path) -> None:
    module = randomize(Levit(TINY), seed=5)
    indices = module.get_buffer("blocks.0.m.attention_bias_idxs")
    indices[3, 5] = (indices[3, 5] + 1) % 16
    file = export(module, TINY, tmp_path / "a.onnx")
    with pytest.raises(DeployError, match="biases that are not one for each offset"):
        load_weights(None, str(file))


def test_files_that_are_not_of_one_picture(tmp_path: Path) -> None:
    module = randomize(Levit(TINY), seed=6)
    sides = {"image": {2: "height", 3: "width"}}
    options = {"input_names": ["image"], "dynamic_axes": sides}
    file = export(module, TINY, tmp_path / "open.onnx", **options)
    with pytest.raises(DeployError, match="of `1 x 3 x \\? x \\?` values, not one square picture"):
        load_weights(None, str(file))
    (tmp_path / "cut.onnx").write_bytes(file.read_bytes()[:5000])
    with pytest.raises(DeployError, match="damaged"):
        load_weights(None, str(tmp_path / "cut.onnx"))


def test_a_library_is_held_against_the_file(tmp_path: Path) -> None:
    module = randomize(timm_model(TINY, conv=True), seed=7)
    checkpoint = load_weights(None, str(export(module, TINY, tmp_path / "a.onnx")))
    verification = deploy(checkpoint, find_toolchain(get_target("host")), tmp_path).verification
    assert verification.passed
    assert verification.reference == "the ONNX file in ONNX Runtime"
    assert verification.weights_digest == checkpoint.digest
