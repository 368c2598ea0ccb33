"""The family of convolutions, in float32, in 16-bit integers and in 16-bit floats."""

from __future__ import annotations

from dataclasses import replace

from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.conv.kernel import conv_kernel
from levit_deploy.compiler.kernels.conv.row import block_family, row_height
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, ConvTile, Source
from levit_deploy.compiler.kernels.family import Family
from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.kernel import Activation, Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.kernels.register_tiles import (
    MIN_ACCUMULATORS,
    distance,
    most_accumulators,
)
from levit_deploy.targets.target import Target

TASKS = 28
MOST_BAND_ROWS = 4  # of an image: what a band converts of it stays in the first cache
SSE_BYTES = 16
SUBTRACTION = 80 / 25  # loads, differences and stores of a tile, for each that is multiplied


def default_tile(spec: ConvSpec, target: Target) -> ConvTile:
    """The tile that computes a row of the output with the fewest instructions.

    There are 28 tasks or a little more, if there are so many rows: they divide evenly among 2, 4 or
    7 threads and well among 16. Of a padded source a task takes one panel, whose weights then stay
    in a near cache while the input streams by. An 8-bit image is converted once for all panels.
    """
    isa = isa_of(target)
    fitting = [
        (pixels, vectors)
        for vectors in _vectors(spec, isa)
        if len(vectors) <= block_family(spec, isa).most_vectors
        and (pixels := _pixels_in_registers(len(vectors), spec, isa)) > 0
    ]
    pixels, vectors = min(fitting, key=lambda t: _row_instructions(t[0], t[1], spec, isa))
    rows = _rows(spec, isa)
    if not spec.source.image:
        panels = spec.out_channels // sum(vectors)
        return ConvTile(pixels, vectors, min(rows, -(-TASKS // panels)), True)
    bands = max(TASKS, -(-rows // MOST_BAND_ROWS))
    return ConvTile(pixels, vectors, min(rows, bands), False)


def _rows(spec: ConvSpec, isa: Isa) -> int:
    """Of the output, of pixels or of tiles; so many a row has, too."""
    return spec.out_size // row_height(spec, isa)


def _vectors(spec: ConvSpec, isa: Isa) -> list[tuple[int, ...]]:
    """Registers of the panels that divide the channels."""
    lanes, channels = block_family(spec, isa).lanes(isa), spec.out_channels
    return [_vectors_of_width(w, lanes) for w in range(4, channels + 1, 4) if channels % w == 0]


def _vectors_of_width(width: int, lanes: int) -> tuple[int, ...]:
    """`width` channels in registers of at most `lanes`: 24 in lanes of 16 is 16 + 8."""
    vectors: list[int] = []
    while width:
        while lanes > width:
            lanes //= 2
        vectors.append(lanes)
        width -= lanes
    return tuple(vectors)


def _pixels_in_registers(vectors: int, spec: ConvSpec, isa: Isa) -> int:
    """How many pixels fit: each takes `vectors` accumulators and its input values.

    Broadcast, padded: one value at a time, and the weights; image: a column's value is shared by
    two pixels and stays for the second, so about one value a pixel. By lane, padded: four values a
    pixel in one register; image: half of that, for the columns overlap; two weights at a time, and
    two registers for the next ones; of float16 one more, or some CPUs' schedules spill. Without
    FMA, two hold products. Of tiles, LLVM wants two more, broadcast ahead, or one beside four
    vectors or more.
    """
    image = spec.source.image
    block = block_family(spec, isa)
    if block.products > 1:
        # Two registers of weights.
        pixels = int((isa.registers - 2) // (block.sums * vectors + block.input_registers))
        # Where an odd one takes the sums of two, the last one would be too much.
        return max(pixels - (block(isa, (4,) * vectors, pixels).rows - pixels), min(pixels, 1))
    if block.half_suffices:
        return isa.registers // 2 // vectors
    spare = isa.registers - (0 if isa.fma else 2)
    if not isa.multiplies_by_lane:
        ahead = 0 if row_height(spec, isa) == 1 else 2 if vectors < 4 else 1
        return (spare - vectors - 1 - ahead) // (vectors + image)
    if image:
        return (2 * (spare - 4) - 1) // (2 * vectors + 1)
    return (spare - 4 - block.in_memory) // (vectors + 1)


def _row_instructions(pixels: int, vectors: tuple[int, ...], spec: ConvSpec, isa: Isa) -> float:
    """Multiply-adds and loads for a row of the output, all channels, one step of the depth."""
    row = _rows(spec, isa)
    cut = Blocks.of(row, pixels)
    panels = spec.out_channels // sum(vectors)
    block = block_family(spec, isa)
    if block.products > 1:
        rows = sum(count * block(isa, vectors, size).rows for size, count in cut.sizes)
        weights = block.weight_parts * cut.count * len(vectors)  # in pairs
        loads = weights + block.input_cost * rows
        return panels * (block.products * rows * len(vectors) + loads)
    multiply_adds = row * len(vectors)
    weights = cut.count * len(vectors)
    new_values = 2 / 3 if spec.source.image else 1  # of three columns, two are new
    values = row * new_values
    if isa.multiplies_by_lane:
        loads = weights / 2 + values / 4  # pairs, and four lanes
    elif isa.vector_bytes == SSE_BYTES:
        loads = weights + 2 * values  # a load and a shuffle
    else:
        loads = weights + values
    if row_height(spec, isa) > 1:
        loads += row * block.step_depth * SUBTRACTION / (isa.vector_bytes // 2)
    return panels * (multiply_adds + loads)


def _is_legal(tile: ConvTile, spec: ConvSpec, target: Target) -> bool:
    isa = isa_of(target)
    family = block_family(spec, isa)
    lanes = {1 << bit for bit in range(2, family.lanes(isa).bit_length())}
    if not tile.vectors or not lanes.issuperset(tile.vectors) or spec.out_channels % tile.width:
        return False
    block = family(isa, tile.vectors, tile.pixels)
    return (
        tile.pixels >= 1
        and block.sums * block.rows * len(tile.vectors) <= most_accumulators(target)
        and 1 <= tile.bands <= _rows(spec, isa)
    )


def _near(spec: ConvSpec, default: ConvTile, target: Target) -> list[ConvTile]:
    isa = isa_of(target)
    sums, rows = block_family(spec, isa).sums, _rows(spec, isa)
    shapes = [
        (Blocks.of(rows, pixels).size, vectors)
        for vectors in _vectors(spec, isa)
        for pixels in range(1, min(rows, target.vector_registers) + 1)
        if sums * pixels * len(vectors) >= MIN_ACCUMULATORS
    ]
    now = (default.pixels, default.width)
    shapes.sort(key=lambda shape: distance((shape[0], sum(shape[1])), now))
    cuts = [
        (default.bands, default.panels_apart),
        (min(2 * default.bands, rows), default.panels_apart),
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
    words += [spec.destination.replace(" ", "_")] * spec.destination.narrow
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
