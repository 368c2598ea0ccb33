"""The stem: four convolutions, the last one's output as tokens.

Before, x (1, 3, S, S):
    hardswish(layer(x)) three times; layer(x)
    reshape (1, C, N); permute (0, 2, 1)
After:  four conv calls. The activations between them are channels-last with a border of zeros, as
        floats or as 16-bit steps, whichever the next one reads; the first convolution also exists
        in a form that reads 8-bit images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from tvm.ir import Expr
from tvm.relax.dpl import DFPattern, is_op, wildcard

from levit_deploy.compiler.groups.conv_layer import (
    CONV_FORMS,
    ConvForm,
    ConvLayer,
    FloatConv,
)
from levit_deploy.compiler.groups.group import Group, Parts
from levit_deploy.compiler.groups.kernel_calls import KernelCalls, Operand
from levit_deploy.compiler.groups.patterns import hardswish, is_float32, permuted, shape_of
from levit_deploy.compiler.kernels.conv.kernel import conv_kernel
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, ConvTile, Destination, Source
from levit_deploy.compiler.kernels.kernel import Activation, Kernel
from levit_deploy.compiler.kernels.output import Stored

CONVOLUTIONS = 4
IMAGE_CHANNELS = 3
SMALLEST_IMAGE = 16
CHANNEL_MULTIPLE = 4  # of what the convolution kernels write


def stem_groups() -> list[Group]:
    """One for each choice of forms; the first convolution reads the image and is float."""
    choices = product(CONV_FORMS, repeat=CONVOLUTIONS - 1)
    return [_group((FloatConv, *forms)) for forms in choices]


def _group(forms: Sequence[ConvForm]) -> Group:
    x = y = wildcard()
    parts: dict[str, DFPattern] = {"x": x}
    layers = []
    for index, form in enumerate(forms):
        layer = form(hardswish(y) if index else y, str(index))
        layers.append(layer)
        y = layer.pattern
        parts |= layer.parts
    flat = is_op("relax.reshape")(y, wildcard())
    name = "_".join(["stem", *(layer.source.value for layer in layers[1:])])
    return Group(name, permuted(flat, 0, 2, 1), {**parts, "flat": flat}, partial(_plan, layers))


@dataclass(frozen=True)
class _StemPlan:
    """The convolutions in their order, and `specs` of them."""

    layers: Sequence[ConvLayer]
    specs: Sequence[ConvSpec]

    def emit(self, calls: KernelCalls, parts: Parts) -> Expr:
        y = parts["x"]
        for index in range(CONVOLUTIONS):
            y = self._convolve(calls, index, y, parts)
        return y

    def _convolve(self, calls: KernelCalls, index: int, x: Expr, parts: Parts) -> Expr:
        spec, layer, target = self.specs[index], self.layers[index], calls.target
        tile = calls.tiles.conv(spec, target)
        proof = layer.proof(parts, spec, tile, target)
        operands: list[Operand] = [x, layer.panels(parts, spec, tile, target)]

        def kernel(symbol: str, stored: Stored) -> Kernel:
            made = conv_kernel(symbol, spec, tile, target, stored=stored)
            return replace(made, prove_exact=proof)

        if spec.destination is Destination.TOKENS:
            tokens = (1, spec.out_size**2, spec.out_channels)
            return calls.call_storing(_symbol(spec, tile), kernel, operands, tokens)
        if spec.destination is Destination.PADDED_INT16:
            operands.append(self.layers[index + 1].steps(parts))
        y = calls.call(
            _symbol(spec, tile),
            lambda symbol: kernel(symbol, Stored.FLOAT),
            operands,
            (spec.destination_size,),
            spec.destination.dtype,
        )
        if spec.source is Source.IMAGE_F32:
            rgb8 = replace(spec, source=Source.IMAGE_RGB8)
            calls.add_rgb8_twin(
                _symbol(spec, tile),
                _symbol(rgb8, tile),
                lambda symbol: conv_kernel(symbol, rgb8, tile, target, calls.normalization),
            )
        return y


def _symbol(spec: ConvSpec, tile: ConvTile) -> str:
    """Such as conv_s224_c3_n16_hardswish_f32_to_int16_8x16_b28."""
    words = ["conv", f"s{spec.in_size}", f"c{spec.in_channels}", f"n{spec.out_channels}"]
    words += [spec.activation.value] * (spec.activation is not Activation.NONE)
    words += [spec.source.value] * (spec.source is not Source.PADDED)
    words += ["to_int16"] * (spec.destination is Destination.PADDED_INT16)
    vectors = "_".join(map(str, tile.vectors))
    return "_".join([*words, f"{tile.pixels}x{vectors}", f"b{tile.bands}"])


def _plan(layers: Sequence[ConvLayer], parts: Parts) -> _StemPlan | None:
    x = shape_of(parts["x"])
    if len(x) != 4 or x[:2] != (1, IMAGE_CHANNELS) or x[2] != x[3] or x[2] < SMALLEST_IMAGE:
        return None
    if not is_float32(parts["x"]):
        return None
    specs: list[ConvSpec] = []
    size, channels = x[2], IMAGE_CHANNELS
    for index, layer in enumerate(layers):
        weight = layer.weight_shape(parts)
        if weight is None or weight[1:] != (channels, 3, 3) or weight[0] % CHANNEL_MULTIPLE:
            return None
        reader = layers[index + 1] if index + 1 < len(layers) else None
        spec = ConvSpec(
            in_size=size,
            in_channels=channels,
            out_channels=weight[0],
            activation=Activation.HARDSWISH if reader else Activation.NONE,
            source=layer.source if index else Source.IMAGE_F32,
            destination=_DESTINATIONS[reader.source] if reader else Destination.TOKENS,
        )
        specs.append(spec)
        size, channels = spec.out_size, spec.out_channels
    if shape_of(parts["flat"]) != (1, channels, size**2):
        return None
    return _StemPlan(layers, specs)


_DESTINATIONS = {
    Source.PADDED: Destination.PADDED,
    Source.PADDED_INT16: Destination.PADDED_INT16,
}
