"""The classifier: mean over the tokens, then one linear layer (both heads merged).

    a[tokens, channels], panels  ->  logits[classes]

A task is one panel of classes. The mean is made once for every range of tasks, in the worker's
scratch; it costs tokens * channels additions beside channels * classes multiply-adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.gemm import MIN_ACCUMULATORS, GemmTile
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.mean import mean_of_tokens
from levit_deploy.compiler.kernels.register_tile import RegisterTile, branch_at_edge
from levit_deploy.compiler.kernels.simd import Simd
from levit_deploy.targets.target import Target


@dataclass(frozen=True)
class HeadSpec:
    """logits[classes] = mean over tokens of a[tokens, channels] @ w[channels, classes] + bias."""

    tokens: int
    channels: int
    classes: int


def default_head_tile(spec: HeadSpec, target: Target) -> GemmTile:
    """As many accumulators as keep the multiply-add units busy.

    More would not help: every weight comes from memory for a single multiply-add.
    """
    lanes = target.float_lanes
    vectors = min(MIN_ACCUMULATORS, -(-spec.classes // lanes))
    return GemmTile(mr=1, nr=vectors * lanes, lanes=lanes, depth_unroll=4)


def head_kernel(symbol: str, spec: HeadSpec, tile: GemmTile, target: Target) -> Kernel:
    """Parameters: a, panels (of `gemm.pack_weights`), logits, scratch, begin, end.

    The mean of a channel is the sum over tokens 0, 1, ... times float32(1 / tokens); a logit is
    one chain from the bias over channels 0, 1, ..., as in `gemm_kernel`. `tile.mr` must be 1.
    """
    assert tile.mr == 1, "the head has one row"
    panels = tile.panels(spec.classes)
    padded = -(-spec.classes // tile.lanes) * tile.lanes
    weights = (1 + spec.channels) * padded
    simd = Simd(target)

    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(symbol)
        T.func_attr({"tirx.noalias": True})
        a = T.arg("a", T.Buffer((spec.tokens * spec.channels,), "float32"))
        w = T.arg("panels", T.Buffer((weights,), "float32"))
        logits = T.arg("logits", T.Buffer((spec.classes,), "float32"))
        mean = T.arg("scratch", T.Buffer((spec.channels,), "float32"))
        begin, end = T.arg("begin", T.int32()), T.arg("end", T.int32())
        mean_of_tokens(simd, spec.tokens, spec.channels, a, mean)

        def panel_product(panel: Expr, vectors: int) -> None:
            row = RegisterTile(
                simd=simd,
                mr=1,
                vectors=vectors,
                row_stride=0,
                depth=spec.channels,
                depth_unroll=tile.depth_unroll,
                sharers=1,
            )
            vector = T.bind(panels.start(panel, vectors))
            w_at = T.bind(vector * (simd.lanes * (1 + spec.channels)))
            acc = row.multiply(mean, 0, w, w_at, T.int32(0))
            for v in range(vectors):
                column = T.bind((vector + v) * simd.lanes)
                value = T.bind(simd.load(acc[0][v], 0))
                body = partial(simd.store_first, logits, column, value)
                branch_at_edge(simd, column, spec.classes, v == vectors - 1, body)

        with T.serial(begin, end) as panel:
            panels.branch(panel, lambda vectors: panel_product(panel, vectors))

    return Kernel(
        symbol=symbol,
        func=builder.get(),
        tasks=panels.count,
        scratch_bytes=4 * spec.channels,
        unaligned=(2,),
        kind="head",
        shape=f"{spec.tokens}x{spec.channels} to {spec.classes}",
        tile=str(tile),
        multiply_adds=spec.channels * spec.classes,
        bytes_moved=4 * (spec.tokens * spec.channels + weights + spec.classes),
    )
