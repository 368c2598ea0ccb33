"""The stem: a conv call for each convolution, the last one's output as tokens.

Between them lie channels-last activations with a border of zeros, as float32, as 16-bit floats or
in 16-bit steps, whichever the next convolution reads. The first one exists twice, for float and for
8-bit images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.flat_program import Value
from levit_deploy.compiler.kernels.conv.family import CONV
from levit_deploy.compiler.kernels.conv.int16 import (
    Steps,
    largest_step,
    pack_weights_int16,
    prove_exact,
)
from levit_deploy.compiler.kernels.conv.kernel import (
    conv_kernel,
    pack_weights,
    pack_weights_half,
)
from levit_deploy.compiler.kernels.conv.output_int16 import pack_steps
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, Destination, Source
from levit_deploy.compiler.kernels.kernel import Activation, Kernel, Proof
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.lower.calls import IMAGE, Calls, Tensor
from levit_deploy.compiler.program import EIGHT_BIT, Entry
from levit_deploy.errors import DeployError
from levit_deploy.half_format import HalfFormat
from levit_deploy.network.arithmetic import Float32, Half, Int16
from levit_deploy.network.network import Conv
from levit_deploy.targets.target import Target

SMALLEST_IMAGE = 16
CHANNEL_MULTIPLE = 4  # of what the convolution kernels write

_WRITTEN = {
    Source.PADDED: Destination.PADDED,
    Source.PADDED_INT16: Destination.PADDED_INT16,
    Source.PADDED_INT16_BYTES: Destination.PADDED_INT16,
    Source.PADDED_FP16: Destination.PADDED_FP16,
    Source.PADDED_BF16: Destination.PADDED_BF16,
}


def lower_stem(calls: Calls, stem: Sequence[Conv], image_size: int) -> Tensor:
    """The tokens of the image, (grid * grid, channels).

    Raises DeployError if there is no kernel for a convolution.
    """
    x, size = IMAGE, image_size
    for conv, reader in zip(stem, [*stem[1:], None], strict=True):
        spec = ConvSpec(
            in_size=size,
            in_channels=conv.inputs,
            out_channels=conv.outputs,
            activation=calls.activation if reader else Activation.NONE,
            source=Source.IMAGE_F32 if x == IMAGE else _source(conv, calls.target),
            destination=_WRITTEN[_source(reader, calls.target)] if reader else Destination.TOKENS,
        )
        _check(conv, spec)
        x = _convolve(calls, conv, spec, x, reader)
        size = spec.out_size
    return Tensor(x, size**2, stem[-1].outputs)


def _convolve(calls: Calls, conv: Conv, spec: ConvSpec, x: Value, reader: Conv | None) -> Value:
    target, tile = calls.target, calls.tiles.tile(spec, calls.target)
    proof: Proof | None = None
    panels: NDArray[np.generic]
    bias = conv.bias.astype(np.float32)
    match conv.arithmetic:
        case Half() if spec.source.half:
            panels = pack_weights_half(conv.weight.astype(np.float32), bias, spec, tile, target)
        case Float32() | Half():
            panels = pack_weights(conv.weight.astype(np.float32), bias, spec, tile)
        case Int16() as int16:
            multiplier = (int16.weight_scales * np.float64(int16.scale)).astype(np.float32)
            panels = pack_weights_int16(_steps(conv), multiplier, bias, spec, tile, target)
            proof = partial(
                prove_exact, spec=spec, tile=tile, target=target, largest=int16.largest_step
            )
    operands: list[Value | NDArray[np.generic]] = [x, panels]
    if reader is not None and isinstance(reader.arithmetic, Int16):
        steps = reader.arithmetic.factors / np.float64(reader.arithmetic.scale)
        operands.append(pack_steps(steps.astype(np.float32), reader.arithmetic.largest_step))

    def kernel(symbol: str, stored: Stored) -> Kernel:
        made = conv_kernel(symbol, spec, tile, target, stored=stored)
        return replace(made, prove_exact=proof)

    out = calls.call(
        CONV.symbol(spec, tile),
        kernel,
        operands,
        np.dtype(spec.destination.dtype).itemsize * spec.destination_size,
        stores_copies=spec.destination is Destination.TOKENS,
        entry=Entry.FLOAT if spec.source.image else Entry.BOTH,
    )
    if spec.source.image:
        entry = EIGHT_BIT[spec.in_channels]
        from_bytes = replace(spec, source=Source(entry.value))
        calls.call(
            CONV.symbol(from_bytes, tile),
            lambda symbol, _: conv_kernel(symbol, from_bytes, tile, target, calls.normalization),
            operands,
            out,
            entry=entry,
        )
    return out


def _source(conv: Conv, target: Target) -> Source:
    """What `conv` reads that another one wrote."""
    match conv.arithmetic:
        case Int16():
            by_bytes = conv.weight.dtype == np.int8
            return Source.PADDED_INT16_BYTES if by_bytes else Source.PADDED_INT16
        case Half(format=format) if format in target.halves:
            return Source.PADDED_FP16 if format is HalfFormat.FP16 else Source.PADDED_BF16
    return Source.PADDED


def _steps(conv: Conv) -> Steps:
    """Weights of an `Int16` convolution."""
    by_bytes = conv.weight.dtype == np.int8
    return conv.weight.astype(np.int8) if by_bytes else conv.weight.astype(np.int16)


def _check(conv: Conv, spec: ConvSpec) -> None:
    if spec.source.image and (spec.in_size < SMALLEST_IMAGE or spec.in_channels not in EIGHT_BIT):
        raise DeployError(
            f"no kernel for images of {spec.in_size} pixels and {spec.in_channels} channels",
            hint=f"images have at least {SMALLEST_IMAGE} x {SMALLEST_IMAGE} pixels, of 3 channels "
            "(RGB) or 1 (grey)",
        )
    if spec.out_channels % CHANNEL_MULTIPLE:
        raise DeployError(
            f"`{conv.name}` has {spec.out_channels} channels, for which there is no kernel",
            hint=f"the stem's channels are multiples of {CHANNEL_MULTIPLE}",
        )
    steps = conv.arithmetic.largest_step if isinstance(conv.arithmetic, Int16) else 0
    if steps and (spec.source.image or not 0 < steps <= largest_step(_steps(conv))):
        raise DeployError(
            f"16-bit sums of `{conv.name}` could overflow",
            hint="quantize the model again: `levit-deploy quantize`",
        )
