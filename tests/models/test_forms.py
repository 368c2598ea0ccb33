"""What training, timm and transformers wrap around weights: all of it comes off, and is told."""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from levit_deploy.errors import DeployError
from levit_deploy.models.checkpoint import Checkpoint, load_checkpoint
from levit_deploy.models.key_names import Origin
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import TINY
from tests.models.libraries import timm_model, timm_module, transformers_model
from tests.randomize import randomize

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    return randomize(timm_model(TINY, conv=False), seed=5)


@pytest.fixture(scope="module")
def weights(theirs: nn.Module) -> State:
    return theirs.state_dict()


@pytest.fixture(scope="module")
def digest(weights: State, tmp_path_factory: pytest.TempPathFactory) -> str:
    return load(weights, tmp_path_factory.mktemp("bare")).digest


def load(content: object, folder: Path, **options: Any) -> Checkpoint:
    torch.save(content, folder / "saved.pth")
    return load_checkpoint(folder / "saved.pth", **options)


def other(weights: State) -> State:
    """Another LeViT of the same sizes."""
    return {name: tensor * 0.5 for name, tensor in weights.items()}


def close(checkpoint: Checkpoint, theirs: nn.Module) -> bool:
    """Whether the reference gives the other model's outputs, to 1e-5 of their range."""
    spec = checkpoint.spec
    rng = torch.Generator().manual_seed(1)
    image = torch.randn(2, spec.in_chans, spec.image_size, spec.image_size, generator=rng)
    with torch.no_grad():
        ours, expected = checkpoint.build()(image), theirs(image)
    return bool((ours - expected).abs().max() <= 1e-5 * (expected.max() - expected.min()))


# Wrappers


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "module._orig_mod.", "model.", "backbone.", "net.0.model.", "levit."],
)
def test_any_prefix_comes_off(prefix: str, weights: State, digest: str, tmp_path: Path) -> None:
    wrapped = {prefix + name: tensor for name, tensor in weights.items()}
    checkpoint = load({"state_dict": wrapped}, tmp_path)
    assert checkpoint.digest == digest
    assert checkpoint.notes == ()


@pytest.mark.parametrize(
    "container",
    ["state_dict", "state_dict_ema", "model_ema", "ema", "model", "net", "weights", "anything"],
)
def test_any_container_is_entered(
    container: str, weights: State, digest: str, tmp_path: Path
) -> None:
    assert load({"epoch": 1, container: weights}, tmp_path).digest == digest


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
@pytest.mark.parametrize("distilled", [True, False, None])
def test_transformers_has_its_own_prefix_beside_others(
    prefix: str, distilled: bool | None, tmp_path: Path
) -> None:
    spec = SPECS[distilled]
    theirs = randomize(transformers_model(spec), seed=6)
    wrapped = {prefix + name: tensor for name, tensor in theirs.inner.state_dict().items()}
    checkpoint = load(wrapped, tmp_path)
    assert (checkpoint.spec.classes, checkpoint.spec.distilled) == (spec.classes, spec.distilled)
    assert close(checkpoint, theirs)


def test_names_beside_the_model_are_left_out_and_told(
    weights: State, digest: str, tmp_path: Path
) -> None:
    """A loss, a memory bank, thop's counts in every module, and the optimizer."""
    noisy = {f"model.{name}": tensor for name, tensor in weights.items()}
    noisy |= {"loss.weight": torch.ones(10), "bank": torch.ones(5, 64)}
    noisy |= {"model.total_ops": torch.ones(1), "model.stem.total_ops": torch.ones(1)}
    noisy |= {"model.stages.0.blocks.0.attn.total_params": torch.ones(1)}
    checkpoint = load({"state_dict": noisy, "optimizer": {"state": {0: torch.ones(3)}}}, tmp_path)
    assert checkpoint.digest == digest
    assert checkpoint.notes == ("left out, as no part of the LeViT: `loss.weight`, `bank`",)


# Several LeViTs in one file


def test_moving_average_is_the_default_as_in_timm(
    weights: State, digest: str, tmp_path: Path
) -> None:
    """timm's own loader, on the same file, says which weights it evaluates."""
    raw = other(weights)
    run = {
        "epoch": 10,
        "arch": "levit_128s",
        "state_dict": raw,
        "state_dict_ema": weights,
        "optimizer": {},
        "args": argparse.Namespace(model="levit_128s", model_ema=True),
        "metric": np.float64(77.0),
    }
    average = load(run, tmp_path)
    assert average.digest == digest
    (note,) = average.notes
    assert "`state_dict_ema`" in note
    assert "--key state_dict" in note
    timms = timm_module("timm.models").load_state_dict(tmp_path / "saved.pth", weights_only=False)
    assert all(torch.equal(timms[name], weights[name]) for name in weights)

    chosen = load(run, tmp_path, key="state_dict")
    assert chosen.digest == load(raw, tmp_path).digest != digest
    assert chosen.notes == ()


def test_key_is_a_prefix_as_well(weights: State, digest: str, tmp_path: Path) -> None:
    both = {f"student.{name}": tensor for name, tensor in weights.items()}
    both |= {f"teacher.{name}": tensor for name, tensor in other(weights).items()}
    with pytest.raises(DeployError, match="2 LeViTs: `student`, `teacher`") as caught:
        load(both, tmp_path)
    assert caught.value.hint == "choose: --key student"
    assert load(both, tmp_path, key="student.").digest == digest


def test_key_that_is_not_there(weights: State, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="no LeViTs under the key `ema`") as caught:
        load({"model": weights}, tmp_path, key="ema")
    assert caught.value.hint == "its weights are under `model`"
    with pytest.raises(DeployError, match="no LeViTs under the key `ema`") as caught:
        load(weights, tmp_path, key="ema")
    assert caught.value.hint == "leave out --key"


# Tensors of other kinds


def test_parameters_are_tensors(theirs: nn.Module, digest: str, tmp_path: Path) -> None:
    assert load(theirs.state_dict(keep_vars=True), tmp_path).digest == digest


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_read_to_the_bit(
    dtype: torch.dtype, weights: State, tmp_path: Path
) -> None:
    stored = {n: t.to(dtype) if t.is_floating_point() else t for n, t in weights.items()}
    widened = {n: t.float() if t.is_floating_point() else t for n, t in stored.items()}
    assert load(stored, tmp_path).digest == load(widened, tmp_path).digest


# Fused by their origin


def fuse(module: nn.Module) -> nn.Module:
    """Every part that knows how is replaced by what its own `fuse` makes of it."""
    for name, part in module.named_children():
        setattr(module, name, part.fuse() if hasattr(part, "fuse") else fuse(part))
    return module


@pytest.mark.parametrize("conv", [False, True])
def test_timm_fused(conv: bool, tmp_path: Path) -> None:
    theirs = fuse(randomize(timm_model(TINY, conv=conv), seed=7))
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in theirs.modules())
    checkpoint = load(theirs.state_dict(), tmp_path)
    assert checkpoint.spec.layout == TINY.layout
    assert close(checkpoint, theirs)


def test_original_after_replace_batchnorm(tmp_path: Path) -> None:
    """The original's `replace_batchnorm` puts a plain layer where layer and BatchNorm were."""
    trained = randomize(Levit(TINY), seed=8)
    fused: State = {}
    state = trained.state_dict()
    for name in [n.removesuffix(".bn.running_var") for n in state if n.endswith("running_var")]:
        bn = {part: state[f"{name}.bn.{part}"].double() for part in BN}
        gain = bn["weight"] / (bn["running_var"] + 1e-5).sqrt()
        offset = bn["bias"] - gain * bn["running_mean"]
        if name.startswith("head"):
            weight = state[f"{name}.l.weight"].double()
            fused[f"{name}.weight"] = (weight * gain).float()
            fused[f"{name}.bias"] = (weight @ offset + state[f"{name}.l.bias"]).float()
        else:
            weight = state[f"{name}.c.weight"].double()
            fused[f"{name}.weight"] = (weight.flatten(1) * gain[:, None]).view_as(weight).float()
            fused[f"{name}.bias"] = offset.float()
    fused |= {name: tensor for name, tensor in state.items() if "attention_bias" in name}
    checkpoint = load({"model": fused}, tmp_path)
    assert checkpoint.origin is Origin.ORIGINAL
    assert close(checkpoint, trained)
    # Folding the BatchNorm that stands in gives the fused weights back, to the bit.
    norm = {part: checkpoint.state[f"blocks.0.m.qkv.bn.{part}"].double() for part in BN}
    gain = norm["weight"] / (norm["running_var"] + 1e-5).sqrt()
    again = (checkpoint.state["blocks.0.m.qkv.c.weight"].double() * gain[:, None]).float()
    assert torch.equal(again, fused["blocks.0.m.qkv.weight"])


BN = ("weight", "bias", "running_mean", "running_var")


def test_transformers_with_folded_batchnorm(tmp_path: Path) -> None:
    """torch's own `fuse_linear_bn_eval`, which leaves an identity where the BatchNorm was."""
    theirs = randomize(transformers_model(TINY), seed=9)
    for part in theirs.modules():
        layer = getattr(part, "convolution", None) or getattr(part, "linear", None)
        if layer is None or type(part).__name__ == "LevitClassificationLayer":
            continue
        utils = torch.nn.utils
        fold = (
            utils.fuse_conv_bn_eval if hasattr(part, "convolution") else utils.fuse_linear_bn_eval
        )
        name = "convolution" if hasattr(part, "convolution") else "linear"
        setattr(part, name, fold(layer, part.batch_norm))
        part.batch_norm = nn.Identity()
    checkpoint = load(theirs.inner.state_dict(), tmp_path)
    assert close(checkpoint, theirs)


# Heads


SPECS = {
    True: TINY,
    False: replace(TINY, distilled=False),
    None: replace(TINY, distilled=False, classes=0),
}


def test_head_without_batchnorm(tmp_path: Path) -> None:
    """`model.head = nn.Linear(...)`, as public fine-tuning scripts do."""
    theirs = randomize(timm_model(SPECS[False], conv=False), seed=10)
    theirs.head = nn.Linear(64, 7)
    checkpoint = load(theirs.state_dict(), tmp_path)
    assert checkpoint.spec.classes == 7
    assert close(checkpoint, theirs.eval())


def test_no_head_gives_features(tmp_path: Path) -> None:
    theirs = randomize(timm_model(SPECS[None], conv=False), seed=11)
    checkpoint = load(theirs.state_dict(), tmp_path)
    assert (checkpoint.spec.classes, checkpoint.spec.outputs, checkpoint.card.heads) == (0, 64, 0)
    assert close(checkpoint, theirs)


def test_features_of_a_classifier(theirs: nn.Module, weights: State, tmp_path: Path) -> None:
    class Pooled(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            features: Tensor = theirs.forward_head(theirs.forward_features(image), pre_logits=True)
            return features

    checkpoint = load(weights, tmp_path, features=True)
    assert checkpoint.spec.outputs == 64
    assert close(checkpoint, Pooled())


@pytest.mark.parametrize("name", ["fc.1", "head.1"])
def test_head_that_is_not_the_levits_is_not_lost(name: str, tmp_path: Path) -> None:
    """`backbone` and `fc`, or a Sequential as the head: the classes are not silently dropped."""
    body = timm_model(SPECS[None], conv=False).state_dict()
    wrapped = {f"backbone.{n}" if name == "fc.1" else n: tensor for n, tensor in body.items()}
    wrapped |= {f"{name}.weight": torch.ones(3, 64), f"{name}.bias": torch.ones(3)}
    with pytest.raises(DeployError, match=f"no classifier .* `{name}.weight` is beside") as caught:
        load(wrapped, tmp_path)
    assert "--output features" in str(caught.value.hint)
    assert load(wrapped, tmp_path, features=True).spec.outputs == 64


# Folders


def test_shards_with_an_index(weights: State, digest: str, tmp_path: Path) -> None:
    """As transformers writes them, with its own `save_pretrained`."""
    theirs = randomize(transformers_model(TINY), seed=12)
    theirs.inner.save_pretrained(tmp_path / "one")
    theirs.inner.save_pretrained(tmp_path / "many", max_shard_size="100KB")
    shards = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(shards) > 2
    whole = load_checkpoint(tmp_path / "one")
    assert load_checkpoint(tmp_path / "many").digest == whole.digest
    shards[1].unlink()
    with pytest.raises(DeployError, match=f"lacks `{shards[1].name}`"):
        load_checkpoint(tmp_path / "many")
    (tmp_path / "many" / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(DeployError, match="` is damaged"):
        load_checkpoint(tmp_path / "many")


def test_index_names_no_file_outside_its_folder(weights: State, tmp_path: Path) -> None:
    save_file(weights, tmp_path / "secret.safetensors")
    folder = tmp_path / "folder"
    folder.mkdir()
    index = {"weight_map": dict.fromkeys(weights, "../secret.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DeployError, match="lacks `secret"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model_best.pth.tar", "mine.pth"])
def test_folder_with_one_checkpoint(name: str, weights: State, digest: str, tmp_path: Path) -> None:
    torch.save({"state_dict": weights}, tmp_path / name)
    (tmp_path / "summary.csv").write_text("epoch,eval_top1\n")
    assert load_checkpoint(tmp_path).digest == digest


def test_folder_with_several_checkpoints_asks(weights: State, tmp_path: Path) -> None:
    for n in (1, 2):
        torch.save(weights, tmp_path / f"checkpoint-{n}.pth.tar")
    with pytest.raises(DeployError, match="but 2 other checkpoints") as caught:
        load_checkpoint(tmp_path)
    assert caught.value.hint == "pass the file itself: --weights FILE"


# Programs


def traced(module: nn.Module, path: Path) -> None:
    torch.jit.trace(module, torch.zeros(1, 3, 64, 64)).save(str(path))


def exported(module: nn.Module, path: Path) -> None:
    torch.export.save(torch.export.export(module, (torch.zeros(1, 3, 64, 64),)), path)


@pytest.mark.parametrize(
    ("save", "what"),
    [(traced, "a TorchScript archive"), (exported, "an archive of torch.export")],
)
def test_the_line_that_saves_a_program_right(
    save: Callable[[nn.Module, Path], None],
    what: str,
    digest: str,
    theirs: nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "program.pt2"
    save(theirs, path)
    with pytest.raises(DeployError, match=what) as caught:
        load_checkpoint(path)
    assert caught.value.hint is not None
    monkeypatch.chdir(tmp_path)
    exec(caught.value.hint, {"torch": torch})
    assert load_checkpoint(tmp_path / "weights.pth").digest == digest


def test_whole_module_of_a_library(theirs: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="holds a whole module") as caught:
        load(theirs, tmp_path)
    assert "torch.save(model.state_dict(), 'weights.pth')" in str(caught.value.hint)
