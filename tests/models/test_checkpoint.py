"""Every form of the same weights is one checkpoint; everything else is one clear error."""

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from levit_deploy.errors import DeployError
from levit_deploy.models.canonical import canonical
from levit_deploy.models.checkpoint import Checkpoint, load_checkpoint, weights_digest
from levit_deploy.models.demo import DEMO_WEIGHTS
from levit_deploy.models.key_names import Origin
from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import TINY, ModelSpec, get_spec
from tests.models.libraries import timm_model, transformers_model

State = dict[str, Tensor]


@pytest.fixture
def state(random_tiny: Levit) -> State:
    return random_tiny.state_dict()


def refuse(path: Path, match: str, spec: ModelSpec = TINY) -> DeployError:
    """The one error that loading `path` raises; it always hints at something."""
    with pytest.raises(DeployError, match=match) as caught:
        load_checkpoint(path, spec)
    assert caught.value.hint
    return caught.value


def save(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def fill(model: nn.Module, checkpoint: Checkpoint, origin: Origin) -> None:
    """Load the checkpoint's weights into a model of its origin."""
    state = model.state_dict()
    bare = {name.removeprefix("levit."): name for name in state}
    names = canonical({name: state[full] for name, full in bare.items()}, origin).own_names
    assert set(names) == set(checkpoint.state)
    for name, own in names.items():
        state[bare[own]] = checkpoint.state[name].reshape(state[bare[own]].shape)
    model.load_state_dict(state)


def test_digest_is_the_same_in_every_form(state: State, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(save({"model": state}, tmp_path / "original.pth"), TINY)
    bare = save(state, tmp_path / "bare.pth")
    legacy = tmp_path / "legacy.pth"
    torch.save({"model": state}, legacy, _use_new_zipfile_serialization=False)
    original = tmp_path / "original.safetensors"
    save_file(state, original)

    linear = timm_model(TINY, conv=False)
    fill(linear, checkpoint, Origin.TIMM)
    timm = tmp_path / "timm.safetensors"
    save_file(linear.state_dict(), timm)

    conv = timm_model(TINY, conv=True)
    fill(conv, checkpoint, Origin.TIMM)
    timm_conv = save(conv.state_dict(), tmp_path / "timm_conv.bin")

    teacher = transformers_model(TINY).inner
    fill(teacher, checkpoint, Origin.TRANSFORMERS)
    folder = tmp_path / "transformers"
    teacher.save_pretrained(folder)

    for path in (bare, legacy, original, timm, timm_conv, folder, folder / "model.safetensors"):
        assert load_checkpoint(path, TINY).digest == checkpoint.digest, path


def test_digest_depends_on_every_value_name_and_shape(state: State, tmp_path: Path) -> None:
    weights = dict(load_checkpoint(save(state, tmp_path / "a.pth"), TINY).state)
    digests = {weights_digest(weights)}
    for name, tensor in weights.items():
        nudged = tensor.clone()
        nudged.view(-1)[-1] = torch.nextafter(nudged.view(-1)[-1], torch.tensor(9.0))
        digests.add(weights_digest({**weights, name: nudged}))
    digests.add(weights_digest({**weights, "head.l.bias": weights["head.bn.bias"]}))
    digests.add(weights_digest({n: t.flatten() for n, t in weights.items()}))
    assert len(digests) == len(weights) + 3


def test_half_precision_is_raised_to_float32(state: State, data_dir: Path) -> None:
    half = load_checkpoint(data_dir / "levit_tiny_cifar10.safetensors", TINY)
    full = load_checkpoint(data_dir / "levit_tiny_cifar10.pth", TINY)
    assert half.digest != full.digest
    for name, tensor in half.state.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, full.state[name].half().float()), name


def test_demo_weights_are_levit_128s_with_ten_classes() -> None:
    checkpoint = load_checkpoint(DEMO_WEIGHTS, get_spec("levit_128s"))
    assert checkpoint.spec == replace(get_spec("levit_128s"), classes=10)
    assert checkpoint.origin is Origin.ORIGINAL


def test_state_is_weights_alone(state: State, tmp_path: Path) -> None:
    """Indices and step counters may be there or not: they make no difference."""
    path = save(state, tmp_path / "all.pth")
    weights = load_checkpoint(path, TINY).state
    assert set(state) - set(weights) == {
        n for n in state if n.endswith(("attention_bias_idxs", "num_batches_tracked"))
    }
    assert load_checkpoint(save(dict(weights), tmp_path / "weights.pth"), TINY).digest == (
        load_checkpoint(path, TINY).digest
    )


def test_build_loads_every_weight(random_tiny: Levit, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(save(random_tiny.state_dict(), tmp_path / "a.pth"), TINY)
    image = torch.randn(2, 3, 64, 64)
    assert torch.equal(checkpoint.build()(image), random_tiny(image))


def test_parameters_are_tensors(random_tiny: Levit, tmp_path: Path) -> None:
    """`state_dict(keep_vars=True)`, as some training scripts save."""
    path = save(random_tiny.state_dict(keep_vars=True), tmp_path / "a.pth")
    plain = save(random_tiny.state_dict(), tmp_path / "b.pth")
    assert load_checkpoint(path, TINY).digest == load_checkpoint(plain, TINY).digest


@pytest.mark.parametrize("kind", ["nested", "jagged", "sparse", "one number", "no storage"])
def test_tensors_that_are_not_plain(kind: str, state: State, tmp_path: Path) -> None:
    name = "blocks.0.m.proj.1.c.weight"
    match kind:
        case "nested" | "jagged":
            parts = [torch.zeros(2, 3), torch.zeros(3, 3)]
            layout = torch.jagged if kind == "jagged" else torch.strided
            state[name] = torch.nested.nested_tensor(parts, layout=layout)
        case "sparse":
            state[name] = state[name].to_sparse()
        case "one number":
            state[name] = torch.zeros(1, 1).expand(10**6, 10**6)
        case "no storage":
            state[name] = state[name].to("meta")
    refuse(save(state, tmp_path / "a.pth"), f"`{name}` in .* is not a plain tensor")


def test_any_strides_are_the_same_weights(state: State, tmp_path: Path) -> None:
    digest = load_checkpoint(save(state, tmp_path / "a.pth"), TINY).digest
    for name, tensor in state.items():
        if tensor.ndim == 2:
            state[name] = tensor.T.contiguous().T
        elif tensor.ndim == 4:
            state[name] = tensor.repeat_interleave(2, 0)[::2]
    assert load_checkpoint(save(state, tmp_path / "b.pth"), TINY).digest == digest


def test_checkpoint_of_a_training_run(state: State, tmp_path: Path) -> None:
    """The original repository's main.py saves its arguments and optimizer beside the weights."""
    run = {"model": state, "epoch": 3, "args": argparse.Namespace(lr=0.1), "optimizer": {}}
    assert load_checkpoint(save(run, tmp_path / "a.pth"), TINY).spec == TINY


# What does not fit


def test_missing_keys_are_named(state: State, tmp_path: Path) -> None:
    for n in range(5):
        del state[
            f"blocks.{n}.{'' if n == 2 else 'm.'}{('qkv', '0', 'kv')[(0, 1, 2, 1, 0)[n]]}.c.weight"
        ]
    error = refuse(save(state, tmp_path / "a.pth"), "is not whole")
    assert "lacks `blocks.0.m.qkv.c.weight`, `blocks.1.m.0.c.weight`" in error.message
    assert "and 2 more" in error.message


def test_keys_that_no_levit_has_are_named(state: State, tmp_path: Path) -> None:
    """A layer scale, for one, changes the numbers: it cannot be left out."""
    state["blocks.0.m.gamma"] = torch.ones(32)
    refuse(save(state, tmp_path / "a.pth"), "holds `blocks.0.m.gamma`, which no LeViT has")


def test_misshapen_keys_are_named_as_in_the_file(tmp_path: Path) -> None:
    weights = timm_model(TINY, conv=True).state_dict()
    weights["stages.0.blocks.0.attn.proj.ln.linear.weight"] = torch.zeros(31, 32, 1, 1)
    error = refuse(save(weights, tmp_path / "a.bin"), "not a LeViT's")
    assert "`stages.0.blocks.0.attn.proj.ln.linear.weight` is (31, 32), expected (32, 32)" in (
        error.message
    )


def test_heads_of_different_class_counts(state: State, tmp_path: Path) -> None:
    state["head_dist.l.weight"] = torch.zeros(7, 64)
    error = refuse(save(state, tmp_path / "a.pth"), "not a LeViT's")
    assert "`head_dist.l.weight` is (7, 64), expected (10, 64)" in error.message


def test_another_levit_than_asked_for_is_told_by_its_sizes(tmp_path: Path) -> None:
    spec = replace(TINY, channels=(48, 56, 64), depths=(1, 2, 1))
    path = save(Levit(spec).state_dict(), tmp_path / "a.pth")
    error = refuse(path, "another LeViT than levit_128s", get_spec("levit_128s"))
    assert "channels (48, 56, 64), not (128, 256, 384); depths (1, 2, 1)" in error.message


@pytest.mark.parametrize(
    ("asked", "held"), [("levit_128", "levit_128s"), ("levit_256", "levit_192")]
)
def test_another_variant_is_named(asked: str, held: str, tmp_path: Path) -> None:
    spec = replace(get_spec(held), classes=3, image_size=96)
    path = save(Levit(spec).state_dict(), tmp_path / "a.pth")
    error = refuse(path, f"holds {held}, not {asked}", get_spec(asked))
    assert error.hint is not None
    assert f"compile --target host {held} --weights {path}" in error.hint


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused_by_name(
    value: float, state: State, tmp_path: Path
) -> None:
    state["blocks.1.m.0.c.weight"][3, 4] = value
    refuse(save(state, tmp_path / "a.pth"), "NaN or infinite values in `blocks.1.m.0.c.weight`")


def test_float64_beyond_float32_is_infinite(state: State, tmp_path: Path) -> None:
    state["head.l.bias"] = torch.full((10,), 1e300, dtype=torch.float64)
    refuse(save(state, tmp_path / "a.pth"), "NaN or infinite values in `head.l.bias`")


def test_negative_variance_is_refused(state: State, tmp_path: Path) -> None:
    state["head.bn.running_var"][0] = -1.0
    refuse(save(state, tmp_path / "a.pth"), "negative variances in `head.bn.running_var`")


def test_integer_weights_are_refused(state: State, tmp_path: Path) -> None:
    state["head.l.weight"] = torch.zeros(10, 64, dtype=torch.int8)
    refuse(save(state, tmp_path / "a.pth"), "not floating point: `head.l.weight`")


def test_other_bias_order_is_refused(state: State, tmp_path: Path) -> None:
    indices = state["blocks.2.attention_bias_idxs"]
    indices[0, 0], indices[0, 1] = indices[0, 1].clone(), indices[0, 0].clone()
    refuse(save(state, tmp_path / "a.pth"), "otherwise: `blocks.2.attention_bias_idxs`")


def test_foreign_network(tmp_path: Path) -> None:
    resnet = {"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.weight": torch.zeros(1000, 512)}
    error = refuse(save(resnet, tmp_path / "resnet18.pth"), "not a LeViT checkpoint")
    assert "`conv1.weight`" in error.message


# What cannot be read


class Hostile:
    """Unpickled, it would create a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_pickle_is_refused_and_not_run(zipped: bool, state: State, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    path = tmp_path / "hostile.pth"
    torch.save(
        {"model": state, "epoch": Hostile(mark)}, path, _use_new_zipfile_serialization=zipped
    )
    refuse(path, r"would run `\w+\.system`")
    assert not mark.exists()


def test_whole_module_is_refused(random_tiny: Levit, tmp_path: Path) -> None:
    error = refuse(save(random_tiny, tmp_path / "a.pth"), "holds a whole module")
    assert "reference.Levit" in error.message


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.99])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_truncated_file(keep: float, suffix: str, data_dir: Path, tmp_path: Path) -> None:
    whole = (data_dir / f"levit_tiny_cifar10.{suffix}").read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole[: int(keep * len(whole))])
    refuse(path, "damaged or cut off" if keep else "is empty")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"<!DOCTYPE html><html>404</html>", "neither a PyTorch nor a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"PK\x03\x04" + bytes(100), "damaged or cut off"),
        (b"\x80\x02" + bytes(100), "damaged or cut off"),
        ((2**60).to_bytes(8, "little") + b'{"a": 1}', "damaged or cut off"),
    ],
)
def test_other_content(content: bytes, match: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    refuse(path, match)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([1, 2], "holds a `list`"),
        (torch.zeros(3), "holds a `Tensor`"),
        ({"epoch": 3}, "not a LeViT checkpoint: it holds `epoch`"),
        ({"model": {1: torch.zeros(1)}}, "not a LeViT checkpoint: it holds `model`"),
        ({}, "holds nothing"),
    ],
)
def test_pickles_without_named_tensors(content: object, match: str, tmp_path: Path) -> None:
    refuse(save(content, tmp_path / "a.pth"), match)


@pytest.mark.parametrize(
    "hollow", [torch.eye(10, 64).to_sparse(), torch.zeros(10, 64, device="meta")]
)
def test_tensors_without_their_numbers(hollow: Tensor, state: State, tmp_path: Path) -> None:
    state["head.l.weight"] = hollow
    refuse(save(state, tmp_path / "a.pth"), "`head.l.weight` in `.*` is not a plain tensor")


def test_missing_file_and_empty_folder(tmp_path: Path) -> None:
    refuse(tmp_path / "none.pth", "No such file")
    refuse(tmp_path, "holds neither of model.safetensors, pytorch_model.bin")


@pytest.mark.parametrize("name", ["head.l.weight", "blocks.0.m.attention_biases"])
def test_huge_expanded_tensor_costs_no_memory(name: str, state: State, tmp_path: Path) -> None:
    """Strides of zero make a terabyte of one number."""
    state[name] = torch.zeros(1).expand(10, 2**38)
    refuse(save(state, tmp_path / "a.pth"), f"`{name}` in `.*` is not a plain tensor")
