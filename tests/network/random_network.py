"""Networks by chance: every size that a LeViT may have, float or with integer layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from levit_deploy.models.reference import Levit
from levit_deploy.models.spec import TINY, Activation, ModelSpec
from levit_deploy.network.arithmetic import DYNAMIC_INT8, Int8, Int16
from levit_deploy.network.fold_model import fold_model
from levit_deploy.network.network import Block, Conv, Linear, Mlp, Network, Precision, map_layers
from levit_deploy.network.network import rounded as round_network
from tests.randomize import randomize


def random_network(
    seed: int, *, precision: Precision = Precision.FP32, integer_share: float = 1.0, **sizes: object
) -> Network:
    """A rounded network of the tiny LeViT with other `sizes` (fields of its ModelSpec).

    `integer_share`: how many of the layers are integers, where the precision is int8.
    """
    spec: ModelSpec = replace(TINY, **sizes)  # type: ignore[arg-type]
    network = round_network(fold_model(randomize(Levit(spec), seed=seed)))
    if precision is Precision.FP32:
        return network
    rng = np.random.default_rng(seed)

    def floats(*shape: int) -> np.ndarray:
        return rng.uniform(0.01, 1, shape).astype(np.float32)

    def conv(layer: Conv) -> Conv:
        if layer is network.stem[0] or rng.random() > integer_share:
            return layer
        scale = float(np.float32(rng.uniform(1e-4, 1e-3)))
        arithmetic = Int16(floats(layer.inputs), scale, 8191, floats(layer.outputs))
        dtype = np.int8 if rng.random() < 0.5 else np.int16
        weight = rng.integers(-99, 99, layer.weight.shape, dtype)
        return replace(layer, weight=weight, arithmetic=arithmetic)

    def linear(layer: Linear) -> Linear:
        if rng.random() > integer_share:
            return layer
        factors = floats(layer.inputs) if rng.random() < 0.5 else None
        scale, zero_point = float(np.float32(rng.uniform(0.01, 0.1))), int(rng.integers(256))
        weight = rng.integers(-64, 65, layer.weight.shape, np.int8)
        arithmetic = Int8(factors, scale, zero_point, floats(layer.outputs))
        return replace(layer, weight=weight, arithmetic=arithmetic)

    def attention(block: Block) -> Block:
        if isinstance(block, Mlp) or rng.random() > integer_share:
            return block
        return replace(block, arithmetic=DYNAMIC_INT8)

    network = map_layers(network, conv, linear)
    return replace(network, blocks=tuple(map(attention, network.blocks)))


@st.composite
def networks(draw: st.DrawFn) -> Network:
    key_dim = draw(st.sampled_from([4, 8, 16]))
    return random_network(
        draw(st.integers(0, 10**6)),
        precision=draw(st.sampled_from(Precision)),
        integer_share=draw(st.sampled_from([0.3, 0.8, 1.0])),
        channels=tuple(key_dim * 8 * draw(st.integers(1, 2)) for _ in range(3)),
        depths=(draw(st.integers(0, 2)), draw(st.integers(0, 2)), draw(st.integers(1, 2))),
        heads=tuple(draw(st.integers(1, 3)) for _ in range(3)),
        key_dim=key_dim,
        image_size=16 * draw(st.integers(1, 6)),
        classes=draw(st.sampled_from([0, 1, 2, 10, 33])),
        distilled=draw(st.booleans()),
        activation=draw(st.sampled_from(Activation)),
        stem_stride=draw(st.sampled_from([8, 16])),
    )
