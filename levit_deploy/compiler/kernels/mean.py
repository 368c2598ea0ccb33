"""The mean of all tokens: x (tokens, channels) -> (channels,)."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.output import Output, Stored
from levit_deploy.targets.target import Target


def mean_kernel(
    symbol: str, tokens: int, channels: int, target: Target, stored: Stored = Stored.FLOAT
) -> Kernel:
    """Parameters: x, those of an `Output` of one row, begin, end. One task."""
    simd = Simd(target)
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(symbol)
        T.func_attr({"tirx.noalias": True})
        x = T.arg("x", T.Buffer((tokens * channels,), "float32"))
        output = Output.declare(stored, 1, channels, target, simd.lanes)
        begin, end = T.arg("begin", T.int32()), T.arg("end", T.int32())

        def store(channel: Expr | int, mean: Expr, count: int) -> None:
            output.store(simd, 0, channel, [mean], last=count)

        with T.serial(begin, end):
            mean_of_tokens(simd, tokens, channels, x, store)
    return Kernel(
        symbol=symbol,
        func=builder.get(),
        tasks=1,
        scratch_bytes=0,
        unaligned=(),
        kind="mean",
        shape=f"{tokens}x{channels}" + f" {stored}" * stored.quantized,
        tile="",
        multiply_adds=0,
        bytes_moved=(4 * tokens + stored.value_bytes) * channels,
    )


def mean_of_tokens(
    simd: Simd,
    tokens: int,
    channels: int,
    a: tirx.Buffer,
    store: Callable[[Expr | int, Expr, int], None],
) -> None:
    """Emit mean[c] = (a[0, c] + a[1, c] + ...) * float32(1 / tokens).

    `store` gets the first channel of a register, the register, and how many lanes are channels.
    """
    scale = 1 / tokens

    def emit(first: Expr | int, count: int) -> None:
        total = simd.register()
        simd.store(total, 0, simd.load_first(a, first, count))
        with T.serial(1, tokens) as token:
            value = simd.load_first(a, token * channels + first, count)
            simd.store(total, 0, simd.load(total, 0) + value)
        store(first, simd.load(total, 0) * simd.splat(scale), count)

    whole = channels // simd.lanes
    if whole:
        with T.serial(whole) as vector:
            emit(vector * simd.lanes, simd.lanes)
    if channels % simd.lanes:
        emit(whole * simd.lanes, channels % simd.lanes)
