"""The mean of all tokens: x (tokens, channels) -> (channels,)."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import Kernel, kernel_function, parameter, task_range
from levit_deploy.compiler.kernels.output import Output, Stored
from levit_deploy.targets.target import Target


def mean_kernel(
    symbol: str, tokens: int, channels: int, target: Target, stored: Stored = Stored.FLOAT
) -> Kernel:
    """Parameters: x, those of an `Output` of one row, begin, end. One task."""
    simd = Simd(isa_of(target))
    with kernel_function(symbol) as builder:
        x = parameter("x", tokens * channels)
        output = Output.declare(stored, 1, channels, simd, simd.lanes)

        def store(channel: Expr | int, mean: Expr, count: int) -> None:
            output.store(simd, 0, channel, [mean], last=count)

        with T.serial(*task_range()):
            mean_of_tokens(simd, tokens, channels, x, store)
    return Kernel(
        symbol=symbol,
        func=builder.get(),
        tasks=1,
        kind="mean",
        shape=f"{tokens}x{channels}{stored.words}",
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
