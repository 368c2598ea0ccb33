"""Matrix products of floats: sizes around vectors and tiles, and what their results should be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from levit_deploy.compiler.kernels.gemm.family import GEMM
from levit_deploy.compiler.kernels.gemm.float32 import default_tile, pack_weights
from levit_deploy.compiler.kernels.gemm.spec import GemmSpec, GemmTile, Layout
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.targets.target import Target
from tests.compiler.kernels.harness import Array, Buffer, undefined
from tests.compiler.kernels.kernel_targets import FLOAT_TARGETS
from tests.compiler.kernels.suite import AROUND_VECTORS, Case, Suite, assert_within

EPS = 2.0**-24  # one float32 rounding
ACTIVATIONS = {
    Activation.HARDSWISH: F.hardswish,
    Activation.SILU: F.silu,
    Activation.RELU: F.relu,
    Activation.GELU: F.gelu,
}
# Of the factor of z: a handful of roundings; that of exp; that of erf, halved.
GATE_ERRORS = {
    Activation.HARDSWISH: 8 * EPS,
    Activation.SILU: 2e-6,
    Activation.RELU: 0,
    Activation.GELU: 1.5e-7 / 2 + 8 * EPS,
}


def make_inputs(spec: GemmSpec, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """a, weights, bias, residual."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape, dtype=np.float32)

    return (
        normal(spec.input_rows, spec.depth),
        normal(spec.depth, spec.columns),
        normal(spec.columns),
        normal(spec.rows, spec.columns),
    )


def constants_and_inputs(spec: GemmSpec, tile: GemmTile, seed: int = 0) -> list[Array]:
    a, weights, bias, residual = make_inputs(spec, seed)
    return [a, pack_weights(weights, bias, tile)] + [residual] * spec.residual


def gathered(spec: GemmSpec, a: Array) -> Array:
    if not spec.gather_side:
        return a
    grid = a.reshape(spec.gather_side, spec.gather_side, spec.depth)
    return grid[::2, ::2].reshape(spec.rows, spec.depth)


def reference(
    spec: GemmSpec, inputs: tuple[Array, Array, Array, Array] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The exact result and how far float32 arithmetic in any order may be from it; of `make_inputs`
    if there are no others.

    A chain of n roundings is off by at most n * eps * sum of magnitudes (Higham, Accuracy and
    Stability of Numerical Algorithms, section 3.1); without FMA there are two a step. Activations
    have slopes of at most 1.5 and errors of their own.
    """
    a, weights, bias, residual = (array.astype(np.float64) for array in inputs or make_inputs(spec))
    a = gathered(spec, a)
    z = a @ weights + bias
    error = (2 * spec.depth + 2) * EPS * (np.abs(a) @ np.abs(weights) + np.abs(bias))
    if spec.activation is not Activation.NONE:
        error = 1.5 * error + GATE_ERRORS[spec.activation] * np.abs(z)
        z = ACTIVATIONS[spec.activation](torch.from_numpy(z)).numpy()
    if spec.residual:
        z = z + residual
        error = error + EPS * np.abs(z)
    return z, error


def rows_of(spec: GemmSpec, flat: Array) -> Array:
    """Any layout -> (rows, columns)."""
    if spec.layout is Layout.ROWS:
        return flat.reshape(spec.rows, spec.columns)
    panels = flat.reshape(-1, spec.rows, 16).transpose(1, 0, 2)
    return panels.reshape(spec.rows, -1)[:, : spec.columns]


PLAIN = GemmSpec(13, 48, 24, Activation.NONE, False, Layout.ROWS)
STREAM = replace(PLAIN, activation=Activation.HARDSWISH, residual=True)
PANELS = replace(PLAIN, layout=Layout.PANELS)


def narrow(target: Target, mr: int = 4, vectors: int = 2) -> GemmTile:
    """A tile that has edges in small products too."""
    lanes = target.float_lanes
    return GemmTile(mr=mr, nr=vectors * lanes, lanes=lanes, depth_unroll=4)


def shared(target: Target, columns: int) -> GemmTile:
    """A tile whose panels are those of every target."""
    return default_tile(replace(STREAM, columns=columns), target, shared=True)


def case(
    spec: GemmSpec, tile: Callable[[Target], GemmTile] | None = narrow, **shape: object
) -> Case:
    spec = replace(spec, **shape)

    def check(outputs: Sequence[Buffer], target: Target) -> None:
        assert_within(rows_of(spec, outputs[0]), *reference(spec))

    return Case(
        spec,
        lambda tile, target: constants_and_inputs(spec, tile),
        lambda target: [undefined(spec.output_size)],
        check,
        tile,
        portable=spec.output_size == spec.rows * spec.columns,  # what pads a panel is not defined
    )


SUITE = Suite(
    GEMM,
    FLOAT_TARGETS,
    {
        "in many ways": case(STREAM, None, rows=23, columns=75, depth=37),
        **{f"{rows} rows": case(PLAIN, rows=rows) for rows in (1, 3, 4, 5, 8, 9)},
        **{f"{n} columns": case(STREAM, rows=5, columns=n) for n in (*AROUND_VECTORS, 23, 33, 49)},
        **{f"depth {depth}": case(PLAIN, depth=depth) for depth in (1, 3, 4, 5, 8, 33)},
        **{activation.value: case(PLAIN, activation=activation) for activation in ACTIVATIONS},
        "residual": case(STREAM, activation=Activation.NONE),
        "hardswish, in panels": case(PANELS, activation=Activation.HARDSWISH),
        **{
            f"panels of {n} columns by {v}": case(
                PANELS, lambda target, v=v: narrow(target, vectors=v), columns=n
            )
            for n in (16, 24, 40)
            for v in (1, 3)
        },
        **{
            f"every second of {side}x{side}": case(
                PANELS, rows=((side + 1) // 2) ** 2, gather_side=side
            )
            for side in (1, 2, 3, 4, 7, 14)
        },
        **{
            f"default tile of {rows}x{columns}x{depth}": case(
                PLAIN, None, rows=rows, columns=columns, depth=depth
            )
            for rows, columns, depth in [
                (196, 256, 128),
                (49, 256, 512),
                (16, 768, 384),
                (9, 96, 48),
                (4, 64, 64),
                (1, 48, 64),
            ]
        },
        **{
            f"shared panels, {n} columns": case(
                STREAM, lambda target, n=n: shared(target, n), rows=rows, columns=n
            )
            for rows, n in ((5, 7), (1, 16), (5, 24), (9, 40), (16, 70), (2, 130))
        },
        "default tile, in panels": case(PANELS, None, rows=16, columns=80, depth=33, gather_side=7),
    },
    cut="in many ways",
)
