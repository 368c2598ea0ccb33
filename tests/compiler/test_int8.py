"""8-bit models through the whole compiler, compared with ONNX Runtime running the same graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from levit_deploy.calibration import quantize
from levit_deploy.compiler.kernels.attention import packed_dot
from levit_deploy.compiler.kernels.attention.score_rows import PARTIAL_SUMS
from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.program import Entry, Program
from levit_deploy.errors import DeployError
from levit_deploy.export.export_model import with_network
from levit_deploy.network import arithmetic
from levit_deploy.network.network import Network
from levit_deploy.targets.table import get_target
from tests.compiler.execute import run
from tests.compiler.graphs import Array, random_image, random_rgb8, reference
from tests.compiler.levit import compiled_tiny
from tests.compiler.quantized import (
    PLAIN,
    compiled_int8_attention,
    compiled_int8_tiny,
    partly_float_tiny,
    quantized_attention,
    quantized_tiny,
)

HOST = get_target("x86-64-v3")


def assert_close(logits: Array, expected: Array) -> None:
    """A step of an activation that falls the other way moves a logit by less than this."""
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-2 * np.ptp(expected))
    assert logits.argmax() == expected.argmax()


def kinds(program: Program) -> list[str]:
    return [call.kind for call in program.calls if call.entry is not Entry.RGB8]


@pytest.mark.parametrize("seed", range(3))
def test_it_computes_what_the_graph_says(seed: int) -> None:
    model, program = quantized_tiny(), compiled_int8_tiny()
    image = random_image(model, seed)
    assert_close(run(program, HOST, image), reference(model, image))


def test_the_8_bit_entry() -> None:
    model, program = quantized_tiny(), compiled_int8_tiny()
    image, normalised = random_rgb8(model)
    logits = run(program, HOST, image, entry=Entry.RGB8, shift=1)
    assert_close(logits, reference(model, normalised))


@pytest.mark.parametrize(
    "target_name",
    ["x86-64-v4", "x86-64-v4-vnni", "arm64", "arm64-dotprod", "arm64-i8mm", "x86-64", "armv7"],
)
def test_every_target_is_right(target_name: str) -> None:
    """With FMA the logits have x86-64-v3's bits."""
    model, target = quantized_tiny(), get_target(target_name)
    program = compiled_int8_tiny(target_name)
    for seed in range(2):
        image = random_image(model, seed)
        logits = run(program, target, image, shift=4)
        assert_close(logits, reference(model, image))
        if target.fma:
            here = run(compiled_int8_tiny(), HOST, image)
            assert logits.tobytes() == here.tobytes()


@pytest.mark.parametrize(
    "target_name",
    [
        *("x86-64-v4-vnni", "arm64-dotprod", "arm64-i8mm", "armv7"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("x86-64-v4", "arm64")),
    ],
)
def test_attention_in_8_bits(target_name: str) -> None:
    """With FMA the logits have x86-64-v3's bits."""
    model, target = quantized_attention(), get_target(target_name)
    program = compiled_int8_attention(target_name)
    assert kinds(program).count("attention int8") == 5
    assert "attention" not in kinds(program)
    exact = [call.kind for call in program.calls if call.exactness]
    assert exact.count("attention int8") == 5
    image = random_image(model)
    logits = run(program, target, image, parts=2)
    assert_close(logits, reference(model, image))
    if target.fma:
        here = run(compiled_int8_attention(), HOST, image)
        assert logits.tobytes() == here.tobytes()


def test_the_network_knows_what_kernels_can_do() -> None:
    """Neither may import the other."""
    assert arithmetic.LARGEST_INTEGER == packed_dot.LARGEST
    assert arithmetic.LARGEST_WEIGHT == packed_dot.LARGEST_WEIGHT
    assert arithmetic.DIFFUSION_STEP == PARTIAL_SUMS
    assert quantize.HEAD_COLUMNS == packed_dot.COLUMNS


@pytest.mark.parametrize("parts", [2, 16])
def test_the_split_over_workers_does_not_change_a_bit(parts: int) -> None:
    image = random_image(quantized_tiny())
    whole = run(compiled_int8_tiny(), HOST, image)
    split = run(compiled_int8_tiny(), HOST, image, parts=parts)
    assert split.tobytes() == whole.tobytes()


@pytest.mark.parametrize("scale", [0, 30, 1e6])
def test_activations_out_of_range_saturate(scale: float) -> None:
    model = quantized_tiny()
    image = np.float32(scale) * random_image(model)
    logits = run(compiled_int8_tiny(), HOST, image)
    assert_close(logits, reference(model, image))


def test_no_weight_has_a_float_copy() -> None:
    """8 bits take a quarter; what is left of the difference are scales, sums and factors."""
    layers = [t for t in quantized_tiny().graph.graph.initializer if t.name.endswith(".weight")]
    weights = sum(int(np.prod(t.dims)) for t in layers if t.data_type == onnx.TensorProto.INT8)
    saved = len(compiled_tiny().constants) - len(compiled_int8_tiny().constants)
    assert weights > 50_000
    assert saved > 2.5 * weights


def test_copies_are_made_where_the_tensor_is_made() -> None:
    """Alone: the copies for a second reader of a stream, where the stages meet."""
    made = kinds(compiled_int8_tiny())
    assert made.count("attention") == 5
    assert made.count("gemm int8") == 23
    assert made.count("quantize") <= 2
    assert "gemm" not in made
    assert made[:4] == ["conv", "conv int16", "conv int16", "conv int16"]


@pytest.mark.parametrize("kept", [("2", "4", "6"), ("4",), ("6",)])
def test_convolutions_that_stay_float(kept: tuple[str, ...]) -> None:
    layers = tuple(f"patch_embed.{index}" for index in kept)
    model = quantized_tiny(replace(PLAIN, float_layers=layers))
    program = compile_model(model, HOST)
    assert kinds(program)[:4].count("conv int16") == 3 - len(kept)
    image = random_image(model)
    assert_close(run(program, HOST, image), reference(model, image))


def test_a_stem_whose_sums_might_wrap_is_refused() -> None:
    """Steps up to twice the limit that goes with the weights."""
    network = quantized_tiny().network
    conv = network.stem[2]
    assert isinstance(conv.arithmetic, arithmetic.Int16)
    wide = replace(conv.arithmetic, largest_step=2 * conv.arithmetic.largest_step)
    stem = (*network.stem[:2], replace(conv, arithmetic=wide), network.stem[3])
    with pytest.raises(DeployError, match=r"16-bit sums of `patch_embed\.4` could overflow"):
        compile_network(replace(network, stem=stem))


def test_weights_whose_sums_might_wrap_are_refused() -> None:
    """Neighbours too large for a sum of 16 bits."""
    network = quantized_tiny().network
    weight = np.full_like(network.head.weight, 127)
    with pytest.raises(DeployError, match="8-bit weights of `head` are so large"):
        compile_network(replace(network, head=replace(network.head, weight=weight)))


def compile_network(network: Network) -> Program:
    return compile_model(with_network(quantized_tiny(), network), HOST)


@pytest.mark.parametrize("ending", [".kv", ".q.1", ".qkv", ".0", ".proj.1", "head"])
def test_layers_that_stay_float(ending: str) -> None:
    model = partly_float_tiny(ending)
    program = compile_model(model, HOST)
    image = random_image(model)
    assert_close(run(program, HOST, image), reference(model, image))


def test_without_factors_of_channels() -> None:
    model = quantized_tiny(PLAIN)
    program = compile_model(model, HOST)
    image = random_image(model)
    assert_close(run(program, HOST, image), reference(model, image))


def test_readers_of_one_copy_share_it() -> None:
    """Keys and queries of the two shrinking attentions read the same stream."""
    program = compiled_int8_tiny()
    shared = [tensor.readers for tensor in program.tensors if len(tensor.readers) > 1]
    assert shared == [
        ("blocks.2.q.1.matmul", "blocks.2.kv.matmul"),
        ("blocks.6.q.1.matmul", "blocks.6.kv.matmul"),
    ]


def test_the_exported_model_is_left_float() -> None:
    assert "gemm int8" not in kinds(compiled_tiny())
