"""The float32 product of tokens and weights that are stored as floats of 16 bits.

    a[rows, depth] float32, panels 16-bit, bias, (residual)  ->  out[rows, columns]

A panel is widened into the worker's scratch by the first tile of a range that reads it, and read
from there, out of a near cache, by all of them, which ask for the next one meanwhile. The result
has the bits that `gemm.float32` gives for the widened weights.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.gemm.float32 import FloatGemm
from levit_deploy.compiler.kernels.gemm.panels import Panels
from levit_deploy.compiler.kernels.gemm.register_tile import ColdPanels
from levit_deploy.compiler.kernels.gemm.spec import GemmStoredHalfSpec, GemmTile
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.kernel import Kernel, parameter
from levit_deploy.compiler.kernels.widen import STORED, load_widened, step_of
from levit_deploy.half_format import HalfFormat
from levit_deploy.targets.target import Target


def pack_halves(
    weights: NDArray[np.float32], format: HalfFormat, tile: GemmTile, target: Target
) -> NDArray[np.generic]:
    """The panels of a kernel, flat, from `weights` (depth, columns), numbers of `format`.

    Panel after panel, each [depth / step][panel columns][step], with the step of `step_of`; padded
    with zeros.
    """
    depth, columns = weights.shape
    step = step_of(format, isa_of(target))
    panels = Panels(columns, depth, tile, 1)
    padded = np.zeros((-(-depth // step) * step, panels.padded), format.dtype)
    padded[:depth, :columns] = weights
    steps = padded.reshape(-1, step, panels.padded).transpose(0, 2, 1)
    packed = np.concatenate([steps[:, part].ravel() for part in panels.slices()])
    return packed.view(STORED[format])


def pack_bias(bias: NDArray[np.float32], tile: GemmTile) -> NDArray[np.float32]:
    """The bias of a kernel, padded with zeros as its columns are."""
    padded = np.zeros(Panels(len(bias), 1, tile, 1).padded, np.float32)
    padded[: len(bias)] = bias
    return padded


def stored_half_kernel(
    symbol: str, spec: GemmStoredHalfSpec, tile: GemmTile, target: Target
) -> Kernel:
    """Parameters: a, panels (of `pack_halves`), bias (of `pack_bias`), residual if any, out,
    scratch, begin, end."""
    return _Generator(symbol, spec, tile, target).kernel()


class _Generator(FloatGemm):
    def __init__(
        self, symbol: str, spec: GemmStoredHalfSpec, tile: GemmTile, target: Target
    ) -> None:
        super().__init__(symbol, spec, tile, target)
        self.spec: GemmStoredHalfSpec = spec
        self.step = step_of(spec.format, self.simd.isa)
        self.stored_depth = -(-spec.depth // self.step) * self.step
        self.halves = Panels(spec.columns, self.stored_depth, tile, 1)

    @property
    def weight_bytes(self) -> int:
        return (2 * self.stored_depth + 4) * self.panels.padded

    @property
    def scratch_size(self) -> int:
        widest = self.panels.tiles.size * self.panels.unit
        return (1 + self.spec.depth) * max(widest, self.panels.width(widest))

    def cold_panels(self, column: Expr, width: int, w_at: Expr) -> ColdPanels:
        start = T.bind(self.halves.start(column))
        return ColdPanels(self.w, start, self.stored_depth * width, self.tiles_per_panel)

    def declare_weights(self) -> None:
        size = self.stored_depth * self.panels.padded
        self.w = parameter("panels", size, STORED[self.spec.format])
        self.bias = parameter("bias", self.panels.padded)

    def panel(self, column: Expr, width: int, first: Expr) -> tuple[tirx.Buffer, Expr]:
        inside = self.panels.inside(column)
        panel_width = self.panels.width(width)
        start = T.bind(column - inside)
        halves = T.bind(self.halves.start(column))
        with T.If(first), T.Then():
            for panel in range(max(width // panel_width, 1)):
                self.widen(start + panel * panel_width, halves, panel, panel_width)
        return self.scratch, T.bind(T.int32(0) + inside)

    def widen(self, column: Expr, halves: Expr, panel: int, width: int) -> None:
        """Panel number `panel` of the tile, whose first column is `column`."""
        simd, depth = self.simd, self.spec.depth
        at, source = panel * (1 + depth) * width, halves + panel * self.stored_depth * width

        lanes = range(0, width, simd.lanes)

        def step(number: Expr | int, count: int) -> None:
            places = [source + (number * width + lane) * self.step for lane in lanes]
            loaded = [load_widened(simd, self.w, place, self.spec.format) for place in places]
            for k in range(count):  # line after line: others come late
                row = at + (1 + number * self.step + k) * width
                for lane, values in zip(lanes, loaded, strict=True):
                    simd.store(self.scratch, row + lane, values[k])

        for lane in lanes:
            simd.store(self.scratch, at + lane, simd.load(self.bias, column + lane))
        whole, rest = divmod(depth, self.step)
        with T.serial(whole) as number:
            step(number, self.step)
        if rest:
            step(whole, rest)
