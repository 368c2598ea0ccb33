"""What a program says of its 8-bit tensors: who reads them, where they are, how they are stored."""

from __future__ import annotations

import numpy as np
import pytest

from levit_deploy.compiler.kernels.isa.activation_storage import ActivationStorage
from levit_deploy.compiler.program import Entry, Program, Space
from tests.compiler.levit import compiled_tiny
from tests.compiler.quantized import compiled_int8_tiny, quantized_tiny

TARGETS = ["x86-64-v3", "arm64", "arm64-i8mm"]


def readers(program: Program) -> list[str]:
    return [reader for tensor in program.tensors for reader in tensor.readers]


@pytest.mark.parametrize("target_name", TARGETS)
def test_every_8_bit_layer_reads_one_of_them(target_name: str) -> None:
    """By the names of the graph, in the order of execution."""
    nodes = quantized_tiny().graph.graph.node
    layers = [node.name for node in nodes if node.name.endswith(".matmul")]
    assert len(layers) == 23
    found = readers(compiled_int8_tiny(target_name))
    assert sorted(found) == sorted(layers)
    assert found.index("blocks.0.m.qkv.matmul") == 0
    assert found.index("head.matmul") == len(layers) - 1


@pytest.mark.parametrize("target_name", TARGETS)
def test_a_step_that_writes_it_has_it_as_an_argument(target_name: str) -> None:
    program = compiled_int8_tiny(target_name)
    for tensor in program.tensors:
        call = program.calls[tensor.step]
        assert call.entry is not Entry.RGB8
        places = [arg.offset_bytes for arg in call.args if arg.space is Space.ARENA]
        assert tensor.offset_bytes in places
        assert len(tensor.inverse_scales) == tensor.channels
        assert tensor.offset_bytes + tensor.size_bytes <= program.arena_bytes


def test_steps_are_those_of_the_graph() -> None:
    """Factors over the scale, of the first layer's input."""
    constants = {c.name: c for c in quantized_tiny().graph.graph.initializer}
    scale, factors, zero = (
        np.frombuffer(constants[f"patch_embed.tokens.{name}"].raw_data, dtype)
        for name, dtype in (("scale", "f4"), ("factors", "f4"), ("zero_point", "u1"))
    )
    tensor = compiled_int8_tiny().tensors[0]
    np.testing.assert_array_equal(
        np.float32(tensor.inverse_scales), np.float32(np.float64(factors) / scale)
    )
    assert tensor.zero == zero[0]
    assert compiled_int8_tiny("arm64-dotprod").tensors[0].zero == int(zero[0]) - 128


@pytest.mark.parametrize("storage", ActivationStorage)
@pytest.mark.parametrize("channels", [1, 8, 15, 40])
def test_strides_say_what_place_does(storage: ActivationStorage, channels: int) -> None:
    row, channel = np.mgrid[:7, :channels]
    pair, odd, block = storage.strides(channels)
    place = row // 2 * pair + row % 2 * odd + channel // 8 * block + channel % 8
    np.testing.assert_array_equal(place, storage.place(row, channel, channels))


def test_a_float_program_has_none() -> None:
    assert compiled_tiny().tensors == ()


def test_the_digest_is_of_what_is_executed() -> None:
    digests = {compiled_int8_tiny(target).digest for target in TARGETS}
    assert len(digests) == len(TARGETS)
