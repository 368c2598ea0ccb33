"""Rescaling that a LeViT cannot feel: factors between layers with nothing nonlinear in between.

After folding, the residual stream of a stage is written and read by linear layers only:

    write(x) * s  ->  stream * s  ->  read(stream * s / s)        s: a factor per channel

So a quantizer may give every channel the range that suits it. Exact in real numbers, and to the
bit in float32 for powers of two. (Scaling channels between linear layers: Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.1.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from levit_deploy.network.network import (
    TOKENS,
    Float64,
    LayerT,
    Network,
    ShrinkingAttention,
    map_layers,
    reading_layers,
    writing_layer,
)


@dataclass(frozen=True)
class Stream:
    """The residual stream of one stage, by names in order of execution.

    `writers`: layers whose output channels are the stream's. `readers`: layers whose input
    channels are. `tensors`: the stream itself, (1, tokens, channels), between the blocks.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    tensors: tuple[str, ...]


def residual_streams(network: Network) -> tuple[Stream, ...]:
    """The stream of each stage, from the stem to the head."""
    writers: list[list[str]] = [[network.stem[-1].name]]
    readers: list[list[str]] = [[]]
    tensors: list[list[str]] = [[TOKENS]]
    for block in network.blocks:
        readers[-1] += [layer.name for layer in reading_layers(block)]
        if isinstance(block, ShrinkingAttention):  # writes the first of the next stage
            for names in (writers, readers, tensors):
                names.append([])
        writers[-1].append(writing_layer(block).name)
        tensors[-1].append(block.output)
    readers[-1] += [network.head.name] if network.head else []
    return tuple(
        Stream(tuple(w), tuple(r), tuple(t))
        for w, r, t in zip(writers, readers, tensors, strict=True)
    )


def scale_stream(network: Network, stream: Stream, factors: Float64) -> Network:
    """Multiply each channel of a stream by its factor; the logits stay what they are.

    factors: (channels,), not zero.
    """

    def change(layer: LayerT) -> LayerT:
        if layer.name in stream.writers:
            return _scale_outputs(layer, factors)
        if layer.name in stream.readers:
            return replace(layer, weight=layer.weight / factors)
        return layer

    return map_layers(network, change, change)


def _scale_outputs(layer: LayerT, factors: Float64) -> LayerT:
    """Multiply each output channel of a layer by its factor; factors: (out,)."""
    columns = factors.reshape(-1, *[1] * (layer.weight.ndim - 1))
    return replace(layer, weight=layer.weight * columns, bias=layer.bias * factors)
