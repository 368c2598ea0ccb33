"""8-bit models through the whole compiler, compared with ONNX Runtime running the same graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from levit_deploy.calibration import attention
from levit_deploy.compiler.compile_log import fallbacks
from levit_deploy.compiler.kernels.attention import packed_dot
from levit_deploy.compiler.kernels.attention.score_rows import PARTIAL_SUMS
from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.program import Entry, Program
from levit_deploy.export.exported import INPUT_NAME, OUTPUT_NAME, ExportedModel
from levit_deploy.targets.table import get_target
from tests.compiler.execute import run
from tests.compiler.graphs import Array, exported, random_image, random_rgb8, reference
from tests.compiler.levit import compiled_tiny, exported_tiny
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
def test_it_computes_what_the_graph_says(seed: int, tmp_path: Path) -> None:
    model, program = quantized_tiny(), compiled_int8_tiny()
    assert not fallbacks(program)
    image = random_image(model, seed)
    assert_close(run(program, HOST, image, tmp_path), reference(model, image))


def test_the_8_bit_entry(tmp_path: Path) -> None:
    model, program = quantized_tiny(), compiled_int8_tiny()
    image, normalised = random_rgb8(model)
    logits = run(program, HOST, image, tmp_path, entry=Entry.RGB8, shift=1)
    assert_close(logits, reference(model, normalised))


@pytest.mark.parametrize(
    "target_name",
    ["x86-64-v4", "x86-64-v4-vnni", "arm64", "arm64-dotprod", "arm64-i8mm", "x86-64", "armv7"],
)
def test_every_target_is_right(target_name: str, tmp_path: Path) -> None:
    """With FMA the logits have x86-64-v3's bits."""
    model, target = quantized_tiny(), get_target(target_name)
    program = compiled_int8_tiny(target_name)
    for seed in range(2):
        image = random_image(model, seed)
        logits = run(program, target, image, tmp_path / "target", shift=4)
        assert_close(logits, reference(model, image))
        if target.fma:
            here = run(compiled_int8_tiny(), HOST, image, tmp_path / "host")
            assert logits.tobytes() == here.tobytes()


@pytest.mark.parametrize(
    "target_name", ["x86-64-v4", "x86-64-v4-vnni", "arm64", "arm64-dotprod", "arm64-i8mm", "armv7"]
)
def test_attention_in_8_bits(target_name: str, tmp_path: Path) -> None:
    """With FMA the logits have x86-64-v3's bits."""
    model, target = quantized_attention(), get_target(target_name)
    program = compiled_int8_attention(target_name)
    assert kinds(program).count("attention int8") == 5
    assert "attention" not in kinds(program)
    exact = [call.kind for call in program.calls if call.exactness]
    assert exact.count("attention int8") == 5
    image = random_image(model)
    logits = run(program, target, image, tmp_path / "target", parts=2)
    assert_close(logits, reference(model, image))
    if target.fma:
        here = run(compiled_int8_attention(), HOST, image, tmp_path / "host")
        assert logits.tobytes() == here.tobytes()


def test_calibration_knows_what_kernels_can_do() -> None:
    """Neither may import the other."""
    assert attention.LARGEST == packed_dot.LARGEST
    assert attention.LARGEST_WEIGHT == packed_dot.LARGEST_WEIGHT
    assert attention.COLUMNS == packed_dot.COLUMNS
    assert attention.MOST_KEYS == packed_dot.MOST_KEYS
    assert attention.CHAIN == PARTIAL_SUMS


@pytest.mark.parametrize("constant", ["differences.36", "float32.254", "float32.127"])
def test_attention_that_rounds_otherwise_is_right(constant: str, tmp_path: Path) -> None:
    """No kernel does it: default lowering computes what the graph says."""
    model = quantized_attention()
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    (tensor,) = (tensor for tensor in graph.graph.initializer if tensor.name == constant)
    values = numpy_helper.to_array(tensor)
    changed = values * np.float32(0.5) if values.ndim == 0 else np.eye(len(values), k=1) + values
    tensor.CopyFrom(numpy_helper.from_array(changed.astype(np.float32), constant))
    model = replace(model, graph=graph)
    program = compile_model(model, HOST)
    assert fallbacks(program)
    image = random_image(model)
    assert_close(run(program, HOST, image, tmp_path), reference(model, image))


@pytest.mark.parametrize("parts", [2, 16])
def test_the_split_over_workers_does_not_change_a_bit(parts: int, tmp_path: Path) -> None:
    image = random_image(quantized_tiny())
    whole = run(compiled_int8_tiny(), HOST, image, tmp_path)
    split = run(compiled_int8_tiny(), HOST, image, tmp_path, parts=parts)
    assert split.tobytes() == whole.tobytes()


@pytest.mark.parametrize("scale", [0, 30, 1e6])
def test_activations_out_of_range_saturate(scale: float, tmp_path: Path) -> None:
    model = quantized_tiny()
    image = np.float32(scale) * random_image(model)
    logits = run(compiled_int8_tiny(), HOST, image, tmp_path)
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
def test_convolutions_that_stay_float(kept: tuple[str, ...], tmp_path: Path) -> None:
    layers = tuple(f"patch_embed.{index}" for index in kept)
    model = quantized_tiny(replace(PLAIN, float_layers=layers))
    program = compile_model(model, HOST)
    assert not fallbacks(program)
    assert kinds(program)[:4].count("conv int16") == 3 - len(kept)
    image = random_image(model)
    assert_close(run(program, HOST, image, tmp_path), reference(model, image))


def test_a_stem_whose_sums_might_wrap_has_no_kernel(tmp_path: Path) -> None:
    """Steps up to twice the limit that goes with the weights: default lowering, in float."""
    model = _edited(quantized_tiny(), {"patch_embed.3.lowest": 2, "patch_embed.3.highest": 2})
    program = compile_model(model, HOST)
    assert "conv int16" not in kinds(program)
    image = random_image(model)
    assert_close(run(program, HOST, image, tmp_path), reference(model, image))


def _edited(model: ExportedModel, factors: dict[str, float]) -> ExportedModel:
    """The model with constants multiplied."""
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    for tensor in graph.graph.initializer:
        if tensor.name in factors:
            values = numpy_helper.to_array(tensor)
            edited = (values * factors[tensor.name]).astype(values.dtype)
            tensor.CopyFrom(numpy_helper.from_array(edited, tensor.name))
    return replace(model, graph=graph)


@pytest.mark.parametrize("ending", [".kv", ".q.1", ".qkv", ".0", ".proj.1", "head"])
def test_layers_that_stay_float(ending: str, tmp_path: Path) -> None:
    model = partly_float_tiny(ending)
    program = compile_model(model, HOST)
    assert not fallbacks(program)
    image = random_image(model)
    assert_close(run(program, HOST, image, tmp_path), reference(model, image))


def test_without_factors_of_channels(tmp_path: Path) -> None:
    model = quantized_tiny(PLAIN)
    program = compile_model(model, HOST)
    assert not fallbacks(program)
    image = random_image(model)
    assert_close(run(program, HOST, image, tmp_path), reference(model, image))


def test_readers_of_one_copy_share_it(tmp_path: Path) -> None:
    model = _two_layers()
    program = compile_model(model, HOST)
    assert kinds(program).count("quantize") == 1
    assert kinds(program).count("gemm int8") == 2
    image = random_image(model)
    assert_close(run(program, HOST, image, tmp_path), reference(model, image))


@pytest.mark.parametrize("odd", [{"weight_zero_point": 3}, {"largest": 127}])
def test_a_layer_without_a_kernel_is_right(odd: dict[str, int], tmp_path: Path) -> None:
    """Weights that are not symmetric, or neighbours too large for a sum of 16 bits: default
    lowering computes them in float."""
    model = _two_layers(**odd)
    program = compile_model(model, HOST)
    assert "gemm int8" not in kinds(program)
    image = random_image(model)
    assert_close(run(program, HOST, image, tmp_path), reference(model, image))


def _two_layers(weight_zero_point: int = 0, largest: int = 64) -> ExportedModel:
    """The sum of two linear layers, one with hardswish, that read the same 8-bit tensor."""
    rng = np.random.default_rng(5)
    node = helper.make_node
    nodes = [
        node("Flatten", [INPUT_NAME], ["x"]),
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["w1", "sw", "zw"], ["f1"], axis=1),
        node("MatMul", ["d", "f1"], ["m1"]),
        node("Add", ["m1", "b"], ["a1"]),
        node("HardSwish", ["a1"], ["h1"]),
        node("DequantizeLinear", ["w2", "sw", "zw"], ["f2"], axis=1),
        node("MatMul", ["d", "f2"], ["m2"]),
        node("Add", ["m2", "b"], ["a2"]),
        node("Add", ["h1", "a2"], [OUTPUT_NAME]),
    ]
    weights = {
        "s": np.float32(0.03),
        "z": np.uint8(131),
        "w1": rng.integers(-largest, largest + 1, (192, 7), dtype=np.int8),
        "w2": rng.integers(-largest, largest + 1, (192, 7), dtype=np.int8),
        "sw": rng.uniform(0.001, 0.002, 7).astype(np.float32),
        "zw": np.full(7, weight_zero_point, np.int8),
        "b": rng.standard_normal(7).astype(np.float32),
    }
    return exported(nodes, weights, size=8, classes=7)


def test_the_exported_model_is_left_float() -> None:
    assert "gemm int8" not in kinds(compiled_tiny())
    assert not fallbacks(compile_model(exported_tiny(), HOST))
