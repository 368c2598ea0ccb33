"""Networks in 16-bit floats, from the rounded weights to libraries that are executed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from levit_deploy.compiler.kernels.attention import bf16 as attention_bf16
from levit_deploy.compiler.kernels.attention import fp16 as attention_fp16
from levit_deploy.compiler.kernels.attention.spec import AttentionBf16Spec, AttentionFp16Spec
from levit_deploy.compiler.tuning.specs import distinct_specs
from levit_deploy.deploy import Deployment, deploy
from levit_deploy.errors import DeployError
from levit_deploy.export.export_model import with_half, with_network
from levit_deploy.export.exported import ExportedModel
from levit_deploy.export.read_network import read_network
from levit_deploy.half_format import HalfFormat
from levit_deploy.models.checkpoint import Checkpoint
from levit_deploy.network.arithmetic import FLOAT32, Float32, Half
from levit_deploy.network.half import KEY_COLUMNS, in_half
from levit_deploy.network.network import LayerT, Linear, Mlp, Precision, map_layers
from levit_deploy.runtime.artifact import Artifact
from levit_deploy.targets.table import get_target
from levit_deploy.targets.toolchain import find_toolchain
from levit_deploy.verify.model_of import reference_of
from levit_deploy.verify.report import Outcome
from levit_deploy.verify.verification import verify_artifact
from tests.compiler.kernels.attention_cases import plain
from tests.compiler.levit import exported_tiny
from tests.machine import prefix_for
from tests.network.random_network import random_network

TORCH = {HalfFormat.FP16: torch.float16, HalfFormat.BF16: torch.bfloat16}
FORMATS = pytest.mark.parametrize("format", HalfFormat)


@FORMATS
def test_rounding_is_pytorchs(format: HalfFormat):
    bits = np.random.default_rng(0).integers(0, 2**32, 4096, np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    values = np.append(values[np.isfinite(values)], np.float32([1 + 2**-11, 1 + 3 * 2**-11, 65520]))
    expected = torch.from_numpy(values).to(TORCH[format]).float().numpy()
    np.testing.assert_array_equal(format.rounded(values), expected)
    assert format.largest == torch.finfo(TORCH[format]).max
    assert format.unit == torch.finfo(TORCH[format]).eps


@FORMATS
def test_all_layers_but_the_first_are_16_bits_in_onnx_and_back(
    format: HalfFormat, tiny_export: ExportedModel
):
    model = with_half(tiny_export, format)
    first, *others = model.network.layers()
    assert isinstance(first.arithmetic, Float32)
    assert all(layer.arithmetic == Half(format) for layer in others)
    assert all(np.array_equal(layer.weight, format.rounded(layer.weight)) for layer in others[3:])
    for conv, given in zip(model.network.stem, tiny_export.network.stem, strict=True):
        np.testing.assert_array_equal(conv.weight, given.weight)
    attention = {b.arithmetic for b in model.network.blocks if not isinstance(b, Mlp)}
    fits = tiny_export.network.blocks[0].key_dim % KEY_COLUMNS[format] == 0
    assert attention == {Half(format) if fits else FLOAT32}
    assert model.precision == Precision(format.value)
    types = {c.data_type for c in model.graph.graph.initializer if "weight" in c.name}
    name = {HalfFormat.FP16: "FLOAT16", HalfFormat.BF16: "BFLOAT16"}[format]
    assert types == {onnx.TensorProto.FLOAT, onnx.TensorProto.DataType.Value(name)}
    with pytest.raises(DeployError, match=f"is already {format}"):
        with_half(model, format)


@pytest.mark.parametrize(
    ("key_dim", "formats"),
    [(4, ""), (8, "fp16"), (16, "fp16 bf16"), (64, "fp16 bf16"), (72, ""), (80, "bf16")],
)
def test_attention_is_16_bits_where_kernels_take_its_heads(key_dim: int, formats: str):
    network = random_network(0, key_dim=key_dim, channels=(80, 80, 80))
    spec = vars(plain(4, key_dim=key_dim, value_dim=2 * key_dim))
    taken = {
        HalfFormat.FP16: attention_fp16.is_supported(AttentionFp16Spec(**spec)),
        HalfFormat.BF16: attention_bf16.is_supported(AttentionBf16Spec(**spec)),
    }
    for format in HalfFormat:
        blocks = in_half(network, format).blocks
        found = {block.arithmetic for block in blocks if not isinstance(block, Mlp)}
        assert found == {Half(format) if format in formats.split() else FLOAT32}
        assert taken[format] == (format in formats.split())


@pytest.mark.parametrize("name", ["patch_embed.2", "blocks.0.m.qkv"])
def test_weights_beyond_float16_are_refused_by_name(name: str, tiny_export: ExportedModel):
    def enlarged(layer: LayerT) -> LayerT:
        factor = np.float32(1e6 if layer.name == name else 1)
        return replace(layer, weight=layer.weight * factor)

    network = map_layers(tiny_export.network, enlarged, enlarged)
    message = f"`{name}` are larger than fp16's largest number, 65504"
    with pytest.raises(DeployError, match=message) as raised:
        in_half(network, HalfFormat.FP16)
    assert "bf16" in (raised.value.hint or "")
    in_half(network, HalfFormat.BF16)


def test_a_graph_that_rounds_weights_to_infinity_is_refused(tiny_export: ExportedModel):
    graph = with_half(tiny_export, HalfFormat.FP16).graph
    weight = next(c for c in graph.graph.initializer if c.name == "patch_embed.2.weight")
    large = np.float32(1e6) * numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(large, weight.name))
    with pytest.raises(DeployError, match=r"`patch_embed\.2\.weight\.halved` does not fit"):
        read_network(graph)


def made(tiny: Checkpoint, target: str, format: HalfFormat, parent: Path) -> Deployment:
    prefix_for(get_target(target))
    return deploy(tiny, find_toolchain(get_target(target)), parent, half=format)


@pytest.mark.parametrize(
    ("target", "format"),
    [
        ("host", HalfFormat.FP16),
        ("host", HalfFormat.BF16),
        ("arm64-dotprod", HalfFormat.FP16),
        ("arm64-i8mm", HalfFormat.BF16),
    ],
)
def test_libraries_are_half_the_size_and_right(
    target: str, format: HalfFormat, tiny: Checkpoint, host_artifact: Artifact, tmp_path: Path
):
    deployment = made(tiny, target, format, tmp_path)
    manifest, verification = deployment.artifact.manifest, deployment.verification
    assert manifest.name == f"levit_tiny_{format}"
    assert manifest.precision == format
    assert verification.reference == "16-bit model in ONNX Runtime"
    assert len(verification.checks) >= 3
    assert all(check.outcome is Outcome.PASSED for check in verification.checks)
    assert manifest.constants_bytes < 0.6 * host_artifact.manifest.constants_bytes
    # Again from the weights alone; and against a model whose first block is another.
    artifact = Artifact.load(deployment.artifact.folder)
    reference = reference_of(artifact, tiny)
    assert verify_artifact(artifact, reference, images=1)
    assert reference.model is not None
    wrong = map_layers(reference.model.network, lambda conv: conv, _another_in_the_first_block)
    model = with_network(reference.model, wrong)
    assert not verify_artifact(artifact, replace(reference, model=model), images=1)


@pytest.mark.parametrize(
    ("target", "kernel"), [("host", "attention_bf16"), ("arm64-i8mm", "attention_bfmmla")]
)
def test_attention_in_bf16_is_executed(target: str, kernel: str, tmp_path: Path):
    """Heads of the tiny net's size are none of its kernels'."""
    prefix_for(get_target(target))
    model = with_half(exported_tiny(key_dim=16), HalfFormat.BF16)
    deployment = deploy(model, find_toolchain(get_target(target)), tmp_path)
    attentions = [c.symbol for c in deployment.program.calls if "_h4_" in c.symbol]
    assert attentions
    native = HalfFormat.BF16 in get_target(target).halves
    assert all(kernel in symbol for symbol in attentions) == native
    outcomes = {check.outcome for check in deployment.verification.checks}
    assert outcomes == {Outcome.PASSED}


def test_float32_layers_before_attention_in_16_bits_are_refused():
    model = exported_tiny(key_dim=16)
    target = get_target("x86-64-v4-bf16")
    halves = with_half(model, HalfFormat.BF16).network.blocks
    blocks = tuple(
        block if isinstance(block, Mlp) else replace(block, arithmetic=half.arithmetic)
        for block, half in zip(model.network.blocks, halves, strict=True)
    )
    mixed = with_network(model, replace(model.network, blocks=blocks))
    with pytest.raises(DeployError, match=f"`{blocks[0].name}` reads in bf16") as raised:
        distinct_specs(mixed, target)
    assert raised.value.hint == "compile the checkpoint: --precision bf16"


def _another_in_the_first_block(layer: Linear) -> Linear:
    other = layer.weight * np.float32(2)
    return replace(layer, weight=other) if layer.name.startswith("blocks.1.") else layer


@pytest.mark.slow
@pytest.mark.parametrize("target", ["x86-64", "x86-64-v3", "arm64", "arm64-i8mm", "armv7"])
@FORMATS
def test_libraries_of_every_target(
    target: str, format: HalfFormat, tiny: Checkpoint, tmp_path: Path
):
    verification = made(tiny, target, format, tmp_path).verification
    assert all(check.outcome is Outcome.PASSED for check in verification.checks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "format"),
    [
        ("x86-64-any", HalfFormat.FP16),
        ("x86-64-any", HalfFormat.BF16),
        ("arm64-any", HalfFormat.FP16),
        ("arm64-any", HalfFormat.BF16),
    ],
)
def test_one_library_for_every_cpu(
    target: str, format: HalfFormat, tiny: Checkpoint, tmp_path: Path
):
    deployment = deploy(tiny, find_toolchain(get_target(target)), tmp_path, half=format)
    outcomes = {check.outcome for check in deployment.verification.checks}
    assert Outcome.FAILED not in outcomes
    assert Outcome.PASSED in outcomes
