"""The 8-bit copies that float kernels make of their results, on every target, against numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.attention.float32 import attention_kernel
from levit_deploy.compiler.kernels.attention.spec import AttentionSpec, AttentionTile
from levit_deploy.compiler.kernels.attention.spec import default_tile as attention_tile
from levit_deploy.compiler.kernels.conv.family import default_tile as conv_tile
from levit_deploy.compiler.kernels.conv.kernel import conv_kernel
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, Destination, Source
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.kernel import Activation, Kernel
from levit_deploy.compiler.kernels.mean import mean_kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.kernels.quantize import pack_quantization
from levit_deploy.targets.target import Target
from tests.compiler.kernels.attention_cases import AttentionLayer, plain, shrinking
from tests.compiler.kernels.conv_cases import make_layer
from tests.compiler.kernels.harness import Buffer, Call, run, undefined
from tests.compiler.kernels.kernel_targets import STORAGE_TARGETS, TARGETS
from tests.compiler.kernels.rounding import quantize
from tests.compiler.kernels.storage import unpack

ZERO_POINT = 90


@dataclass(frozen=True)
class Producer:
    """A kernel with a float result (rows, channels); `factor`: 8-bit steps in one unit of it."""

    rows: int
    channels: int
    factor: float
    make: Callable[[str, Target, Stored], Kernel]
    inputs: Callable[[Target], list[NDArray[np.generic]]]


def mean(tokens: int, channels: int, factor: float) -> Producer:
    x = np.random.default_rng(0).standard_normal((tokens, channels), np.float32)
    return Producer(
        1,
        channels,
        factor,
        lambda symbol, target, stored: mean_kernel(symbol, tokens, channels, target, stored),
        lambda target: [x],
    )


def attention(spec: AttentionSpec, value_vectors: int = 0) -> Producer:
    """`value_vectors`: registers of values in the tile, unless it is the default one."""

    def tile(target: Target) -> AttentionTile:
        chosen = attention_tile(spec, target)
        columns = value_vectors * target.float_lanes or chosen.value_columns
        return replace(chosen, value_columns=columns)

    case = AttentionLayer.random(spec, scale=3)
    return Producer(
        spec.queries,
        spec.heads * spec.value_dim,
        70,
        lambda symbol, target, stored: attention_kernel(symbol, spec, tile(target), target, stored),
        lambda target: list(case.inputs()),
    )


def conv(size: int, channels: int, out_channels: int) -> Producer:
    source, destination = Source.PADDED, Destination.TOKENS
    spec = ConvSpec(size, channels, out_channels, Activation.NONE, source, destination)
    case = make_layer(spec)
    return Producer(
        spec.out_size**2,
        out_channels,
        10,
        lambda symbol, target, stored: conv_kernel(
            symbol, spec, conv_tile(spec, target), target, stored=stored
        ),
        lambda target: case.inputs(conv_tile(spec, target)),
    )


PRODUCERS = {
    "mean": mean(16, 48, factor=200),
    "mean of few channels": mean(4, 10, factor=50),
    "attention": attention(plain(7, heads=3)),
    "three registers of values": attention(plain(3, value_dim=144), value_vectors=3),
    "shrinking attention": attention(shrinking(5)),
    "narrow values": attention(shrinking(4, heads=3, key_dim=8, value_dim=16)),
    "convolution": conv(14, 8, 48),
    "convolution, odd size": conv(9, 12, 32),
    "convolution of 20 channels": conv(6, 4, 20),
}


def test_every_storage_is_there() -> None:
    assert {isa_of(target).storage for target in STORAGE_TARGETS} == {
        isa_of(target).storage for target in TARGETS
    }


@pytest.fixture(scope="module", params=STORAGE_TARGETS, ids=lambda target: target.name)
def outputs(
    request: pytest.FixtureRequest,
) -> tuple[Target, dict[tuple[str, Stored], list[Buffer]]]:
    """What every producer wrote on one target, in each of the ways that it has."""
    target: Target = request.param
    stored_there = [s for s in Stored if not s.half or s.half_format in target.halves]
    ways = [(name, stored) for name in PRODUCERS for stored in stored_there]
    calls = [
        call_of(f"kernel_{n}", PRODUCERS[way[0]], way[1], target) for n, way in enumerate(ways)
    ]
    return target, dict(zip(ways, run(calls, target), strict=True))


def call_of(symbol: str, producer: Producer, stored: Stored, target: Target) -> Call:
    kernel = producer.make(symbol, target, stored)
    rows, channels = producer.rows, producer.channels
    constants, written = producer.inputs(target), []
    if stored.quantized:
        constants.append(pack_quantization(factors(producer), ZERO_POINT))
    if stored.float:
        written.append(undefined(rows * channels, "float32"))
    if stored.quantized:
        storage = isa_of(target).storage
        written.append(undefined(storage.size(rows, channels), storage.dtype))
    if stored.half_format is not None:
        copy = isa_of(target).half_storage(stored.half_format)
        written.append(undefined(copy.size(rows, channels), "float16"))
    return Call(kernel, constants, written)


def factors(producer: Producer) -> NDArray[np.float32]:
    spread = np.random.default_rng(1).uniform(0.5, 2, producer.channels)
    return (producer.factor * spread).astype(np.float32)


@pytest.mark.parametrize("name", PRODUCERS)
def test_the_copy_is_that_of_the_float_result(
    name: str, outputs: tuple[Target, dict[tuple[str, Stored], list[Buffer]]]
) -> None:
    target, written = outputs
    producer = PRODUCERS[name]
    rows, channels = producer.rows, producer.channels
    x = written[name, Stored.FLOAT][0]
    assert np.isfinite(x).all()
    np.testing.assert_array_equal(written[name, Stored.BOTH][0], x)
    q = quantize(x.reshape(rows, channels), factors(producer), ZERO_POINT)
    assert len(np.unique(q)) > 8
    for buffer in (written[name, Stored.BOTH][1], written[name, Stored.QUANTIZED][0]):
        stored = unpack(isa_of(target).storage, buffer, rows, channels)
        np.testing.assert_array_equal(stored, q)
    if target.halves:
        np.testing.assert_array_equal(written[name, Stored.FLOAT_AND_FP16][0], x)
        for half in (written[name, Stored.FLOAT_AND_FP16][1], written[name, Stored.FP16][0]):
            np.testing.assert_array_equal(half, x.astype(np.float16))
