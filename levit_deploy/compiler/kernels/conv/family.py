"""The family of convolutions, in float32 and in 16-bit integers."""

from __future__ import annotations

from dataclasses import replace

from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.conv.kernel import conv_kernel
from levit_deploy.compiler.kernels.conv.row import block_family
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, ConvTile, Destination, Source
from levit_deploy.compiler.kernels.conv.tile import default_tile, vectors_of_width
from levit_deploy.compiler.kernels.family import Family
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.kernel import Activation, Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.kernels.register_tiles import (
    MIN_ACCUMULATORS,
    distance,
    most_accumulators,
)
from levit_deploy.targets.target import Target


def _is_legal(tile: ConvTile, spec: ConvSpec, target: Target) -> bool:
    isa = isa_of(target)
    lanes = {1 << bit for bit in range(2, isa.lanes.bit_length())}
    if not tile.vectors or not lanes.issuperset(tile.vectors) or spec.out_channels % tile.width:
        return False
    block = block_family(spec, isa)(isa, tile.vectors, tile.pixels)
    return (
        tile.pixels >= 1
        and block.sums * block.rows * len(tile.vectors) <= most_accumulators(target)
        and 1 <= tile.bands <= spec.out_size
    )


def _near(spec: ConvSpec, default: ConvTile, target: Target) -> list[ConvTile]:
    widths = [w for w in range(4, spec.out_channels + 1, 4) if spec.out_channels % w == 0]
    sums = block_family(spec, isa_of(target)).sums
    shapes = [
        (Blocks.of(spec.out_size, pixels).size, vectors)
        for vectors in (vectors_of_width(width, target.float_lanes) for width in widths)
        for pixels in range(1, min(spec.out_size, target.vector_registers) + 1)
        if sums * pixels * len(vectors) >= MIN_ACCUMULATORS
    ]
    now = (default.pixels, default.width)
    shapes.sort(key=lambda shape: distance((shape[0], sum(shape[1])), now))
    cuts = [
        (default.bands, default.panels_apart),
        (min(2 * default.bands, spec.out_size), default.panels_apart),
        (-(-default.bands // 2), default.panels_apart),
        (default.bands, not default.panels_apart),
    ]
    own = [replace(default, bands=bands, panels_apart=apart) for bands, apart in cuts]
    return own + [replace(default, pixels=p, vectors=v) for p, v in shapes]


def _generate(
    symbol: str, spec: ConvSpec, tile: ConvTile, target: Target, stored: Stored
) -> Kernel:
    return conv_kernel(symbol, spec, tile, target, stored=stored)


def _symbol(spec: ConvSpec, tile: ConvTile) -> str:
    """Such as conv_s224_c3_n16_hardswish_f32_to_int16_8x16_b28."""
    words = ["conv", f"s{spec.in_size}", f"c{spec.in_channels}", f"n{spec.out_channels}"]
    words += [spec.activation.value] * (spec.activation is not Activation.NONE)
    words += [spec.source.value] * (spec.source is not Source.PADDED)
    words += ["to_int16"] * (spec.destination is Destination.PADDED_INT16)
    vectors = "_".join(map(str, tile.vectors))
    return "_".join([*words, f"{tile.pixels}x{vectors}", f"b{tile.bands}"])


CONV = Family(
    name="conv",
    spec=ConvSpec,
    tile=ConvTile,
    default_tile=default_tile,
    is_legal=_is_legal,
    neighbours=_near,
    generate=_generate,
    symbol=_symbol,
)
