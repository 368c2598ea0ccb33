"""Inputs of a matrix product and what its result should be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.gemm.float32 import pack_weights
from levit_deploy.compiler.kernels.gemm.spec import GemmSpec, GemmTile, Layout
from levit_deploy.compiler.kernels.kernel import Activation
from tests.compiler.kernels.running import Array

EPS = 2.0**-24  # one float32 rounding


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


def reference(spec: GemmSpec, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The exact result and how far float32 arithmetic in any order may be from it.

    A chain of n roundings is off by at most n * eps * sum of magnitudes (Higham, Accuracy and
    Stability of Numerical Algorithms, section 3.1); without FMA there are two a step. Hardswish
    has a slope of at most 1.5 and a handful of roundings of its own.
    """
    a, weights, bias, residual = (array.astype(np.float64) for array in make_inputs(spec, seed))
    a = gathered(spec, a)
    z = a @ weights + bias
    error = (2 * spec.depth + 2) * EPS * (np.abs(a) @ np.abs(weights) + np.abs(bias))
    if spec.activation is Activation.HARDSWISH:
        error = 1.5 * error + 8 * EPS * np.abs(z)
        z = z * np.clip(z / 6 + 0.5, 0, 1)
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
