"""The mean of all tokens: x (tokens, channels) -> (channels,)."""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.simd import Simd
from levit_deploy.targets.target import Target


def mean_kernel(symbol: str, tokens: int, channels: int, target: Target) -> Kernel:
    """Parameters: x, out, begin, end. One task."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(symbol)
        T.func_attr({"tirx.noalias": True})
        x = T.arg("x", T.Buffer((tokens * channels,), "float32"))
        out = T.arg("out", T.Buffer((channels,), "float32"))
        begin, end = T.arg("begin", T.int32()), T.arg("end", T.int32())
        with T.serial(begin, end):
            mean_of_tokens(Simd(target), tokens, channels, x, out)
    return Kernel(
        symbol=symbol,
        func=builder.get(),
        tasks=1,
        scratch_bytes=0,
        unaligned=(),
        kind="mean",
        shape=f"{tokens}x{channels}",
        tile="",
        multiply_adds=0,
        bytes_moved=4 * (tokens + 1) * channels,
    )


def mean_of_tokens(
    simd: Simd, tokens: int, channels: int, a: tirx.Buffer, mean: tirx.Buffer, at: int = 0
) -> None:
    """Emit mean[at + c] = (a[0, c] + a[1, c] + ...) * float32(1 / tokens)."""
    scale = 1 / tokens

    def emit(first: Expr | int, count: int) -> None:
        total = simd.register()
        simd.store(total, 0, simd.load_first(a, first, count))
        with T.serial(1, tokens) as token:
            value = simd.load_first(a, token * channels + first, count)
            simd.store(total, 0, simd.load(total, 0) + value)
        simd.store_first(mean, at + first, simd.load(total, 0) * simd.splat(scale), count)

    whole = channels // simd.lanes
    if whole:
        with T.serial(whole) as vector:
            emit(vector * simd.lanes, simd.lanes)
    if channels % simd.lanes:
        emit(whole * simd.lanes, channels % simd.lanes)
