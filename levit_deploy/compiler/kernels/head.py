"""One linear layer of the mean over the tokens: the classifier, and what goes before it.

    a[tokens, channels], panels, (residual[tokens, classes])  ->  logits[classes]

A task is one panel of classes. The means are made once for every range of tasks, in the worker's
scratch; they cost tokens * channels additions beside channels * classes multiply-adds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.family import CutBy, Family, float_only
from levit_deploy.compiler.kernels.gemm import family as gemm
from levit_deploy.compiler.kernels.gemm.panels import Panels
from levit_deploy.compiler.kernels.gemm.register_tile import RegisterTile, branch_at_edge
from levit_deploy.compiler.kernels.gemm.spec import GemmTile
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import Kernel, kernel_function, parameter, task_range
from levit_deploy.compiler.kernels.mean import mean_of_tokens
from levit_deploy.compiler.kernels.register_tiles import MIN_ACCUMULATORS
from levit_deploy.targets.target import Target


@dataclass(frozen=True)
class HeadSpec(CutBy[GemmTile]):
    """logits[classes] = mean over tokens of a[tokens, channels] @ w[channels, classes] + bias.

    `residual`: + the mean over tokens of residual[tokens, classes]. So the last layer of the body,
    whose sum with its residual is only wanted as a mean, computes one row instead of all.
    """

    tokens: int
    channels: int
    classes: int
    residual: bool = False


def default_tile(spec: HeadSpec, target: Target, shared: bool = False) -> GemmTile:
    """As many accumulators as keep the multiply-add units busy; a tile that reads `shared` panels.

    More would not help: every weight comes from memory for a single multiply-add.
    """
    lanes = target.float_lanes
    vectors = min(MIN_ACCUMULATORS, -(-spec.classes // lanes))
    tile = GemmTile(mr=1, nr=vectors * lanes, lanes=lanes, depth_unroll=4)
    return tile.for_sharing() if shared else tile


def head_kernel(symbol: str, spec: HeadSpec, tile: GemmTile, target: Target) -> Kernel:
    """Parameters: a, panels (of `gemm.pack_weights`), residual if any, logits, scratch, begin, end.

    The mean of a channel is the sum over tokens 0, 1, ... times float32(1 / tokens); a logit is
    one chain from the bias over channels 0, 1, ..., as in `gemm_kernel`, then + the residual's
    mean. `tile.mr` must be 1.
    """
    assert tile.mr == 1, "the head has one row"
    panels = Panels(spec.classes, 1 + spec.channels, tile, 1)
    weights = (1 + spec.channels) * panels.padded
    residuals = spec.classes if spec.residual else 0
    simd = Simd(isa_of(target))

    with kernel_function(symbol) as builder:
        a = parameter("a", spec.tokens * spec.channels)
        w = parameter("panels", weights)
        if spec.residual:
            residual = parameter("residual", spec.tokens * residuals)
        logits = parameter("logits", spec.classes)
        means = parameter("scratch", spec.channels + residuals)
        begin, end = task_range()

        def store_mean(channel: Expr | int, value: Expr, count: int, first: int = 0) -> None:
            simd.store_first(means, first + channel, value, count)

        mean_of_tokens(simd, spec.tokens, spec.channels, a, store_mean)
        if spec.residual:
            store_residual = partial(store_mean, first=spec.channels)
            mean_of_tokens(simd, spec.tokens, spec.classes, residual, store_residual)

        def store(column: Expr, value: Expr, count: int) -> None:
            if spec.residual:
                value = value + simd.load_first(means, spec.channels + column, count)
            simd.store_first(logits, column, value, count)

        def panel_product(panel: Expr, units: int) -> None:
            width = units * panels.unit
            vectors = width // simd.lanes
            row = RegisterTile(
                simd=simd,
                mr=1,
                vectors=vectors,
                panel_width=panels.width(width),
                row_stride=0,
                depth=spec.channels,
                depth_unroll=tile.depth_unroll,
            )
            first = T.bind(panels.tiles.start(panel, units) * panels.unit)
            w_at = T.bind(panels.start(first) + panels.inside(first))
            acc = row.multiply(means, 0, w, w_at)
            for v in range(vectors):
                column = T.bind(first + v * simd.lanes)
                value = T.bind(simd.load(acc[0][v], 0))
                body = partial(store, column, value)
                branch_at_edge(simd, column, panels, panels.left(v * simd.lanes, width), body)

        with T.serial(begin, end) as panel:
            panels.tiles.branch(panel, lambda units: panel_product(panel, units))

    inputs = spec.tokens * (spec.channels + residuals)
    return Kernel(
        symbol=symbol,
        func=builder.get(),
        tasks=panels.tiles.count,
        scratch_bytes=4 * (spec.channels + residuals),
        unaligned=(3 if spec.residual else 2,),
        kind="head",
        shape=" ".join(
            [f"{spec.tokens}x{spec.channels} to {spec.classes}", *["residual"] * spec.residual]
        ),
        tile=str(tile),
        multiply_adds=spec.channels * spec.classes,
        bytes_moved=4 * (inputs + weights + spec.classes),
    )


def _is_legal(tile: GemmTile, spec: HeadSpec, target: Target) -> bool:
    return tile.mr == 1 and gemm.is_legal(tile, spec, target)


def _near(spec: HeadSpec, default: GemmTile, target: Target) -> Iterator[GemmTile]:
    wider = (default.nr // 2, default.nr, default.nr * 3 // 2, default.nr * 2)
    for nr, unroll in itertools.product(wider, (default.depth_unroll, 2, 8)):
        yield replace(default, nr=nr, depth_unroll=unroll)


def _symbol(spec: HeadSpec, tile: GemmTile) -> str:
    """Such as head_t16_k384_n1000_1x32_u4."""
    words = ["head", f"t{spec.tokens}", f"k{spec.channels}", f"n{spec.classes}"]
    words += ["residual"] * spec.residual
    return "_".join([*words, str(tile).replace(" ", "_"), f"u{tile.depth_unroll}"])


HEAD = Family(
    name="head",
    spec=HeadSpec,
    tile=GemmTile,
    default_tile=default_tile,
    is_legal=_is_legal,
    neighbours=_near,
    generate=float_only(head_kernel),
    symbol=_symbol,
    shared_tile=partial(default_tile, shared=True),
)
