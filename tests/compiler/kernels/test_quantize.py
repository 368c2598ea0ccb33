"""Quantization and the storage of 8-bit activations, against numpy."""

from __future__ import annotations

import ctypes
import ctypes.util

import numpy as np
import pytest

from levit_deploy.compiler.kernels.isa.activation_storage import (
    ActivationStorage,
)
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.quantize import (
    QuantizeSpec,
    pack_quantization,
    quantize_kernel,
)
from levit_deploy.targets.table import get_target
from tests.compiler.kernels.harness import Call, run, undefined
from tests.compiler.kernels.kernel_targets import TARGETS
from tests.compiler.kernels.rounding import Float32, fma, quantize
from tests.compiler.kernels.storage import pack, unpack

HUGE = [1e30, -1e30, 3e9, -3e9, np.inf, -np.inf, 40000.0, -40000.0, 0.0, -0.0]


def values(rows: int, channels: int) -> Float32:
    """Ties, ordinary values, and ones far beyond all ranges, in every lane."""
    rng = np.random.default_rng(channels)
    x = rng.integers(-600, 600, (rows, channels)) / 2
    x[1::3] = rng.normal(0, 100, x[1::3].shape)
    x[2::3] = rng.choice(HUGE, x[2::3].shape)
    return x.astype(np.float32)


SPECS = [
    (QuantizeSpec(rows, channels), zero_point)
    for rows, channels, zero_point in [
        (6, 1, 0),
        (3, 4, 255),
        (7, 8, 128),
        (3, 10, 3),
        (6, 24, 250),
        (5, 40, 0),
        (9, 128, 100),
        (4, 196, 255),
    ]
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_every_bit(target) -> None:  # type: ignore[no-untyped-def]
    storage = isa_of(target).storage
    calls, expected = [], []
    for n, (spec, zero_point) in enumerate(SPECS):
        kernel = quantize_kernel(f"quantize_{n}", spec, target)
        x = values(spec.rows, spec.channels)
        factors = np.random.default_rng(n).choice(np.float32([1, 0.5, 0.37]), spec.channels)
        constants = pack_quantization(factors, zero_point)
        out = undefined(storage.size(spec.rows, spec.channels), storage.dtype)
        calls.append(Call(kernel, [x, constants], [out], [(1, kernel.tasks), (0, 1)]))
        expected.append(quantize(x, factors, zero_point))
    for (spec, _), q, (written,) in zip(SPECS, expected, run(calls, target), strict=True):
        np.testing.assert_array_equal(unpack(storage, written, spec.rows, spec.channels), q)


@pytest.mark.parametrize("storage", ActivationStorage)
@pytest.mark.parametrize(("rows", "channels"), [(1, 1), (4, 16), (5, 40)])
def test_storage_round_trip(storage: ActivationStorage, rows: int, channels: int) -> None:
    q = np.random.default_rng(0).integers(0, 256, (rows, channels), np.uint8)
    flat = pack(storage, q)
    assert flat.size == storage.size(rows, channels)
    np.testing.assert_array_equal(unpack(storage, flat, rows, channels), q)


def test_pairs_of_rows_are_the_operand_of_smmla() -> None:
    q = np.arange(128, 128 + 32, dtype=np.uint8).reshape(2, 16)
    flat = pack(ActivationStorage.S8_PAIRS, q)
    expected = [*range(0, 8), *range(16, 24), *range(8, 16), *range(24, 32)]
    assert flat.tolist() == expected


def test_storage_of_targets() -> None:
    assert isa_of(get_target("x86-64-v3")).storage is ActivationStorage.U8
    assert isa_of(get_target("x86-64-v4-vnni")).storage is ActivationStorage.U8
    assert isa_of(get_target("arm64")).storage is ActivationStorage.S8
    assert isa_of(get_target("arm64-i8mm")).storage is ActivationStorage.S8_PAIRS


def test_the_reference_fma_is_the_c_library_s() -> None:
    """Random values, and sums whose rounding in float64 lands on a tie of float32."""
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    library.fmaf.restype = ctypes.c_float
    library.fmaf.argtypes = [ctypes.c_float] * 3
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3000)).astype(np.float32)
    c = (rng.standard_normal(3000) * 10.0 ** rng.integers(-12, 6, 3000)).astype(np.float32)
    a[:1000] = 1 + rng.integers(0, 2**23, 1000) * np.float32(2**-23)
    b[:1000] = np.float32(2) ** rng.integers(-60, -20, 1000)
    c[:1000] = 1 + rng.integers(0, 2**22, 1000) * np.float32(2**-22)
    a[:500], b[:500] = 1 + np.float32(2**-23), np.float32(2**-24)
    expected = [library.fmaf(*map(float, triple)) for triple in zip(a, b, c, strict=True)]
    np.testing.assert_array_equal(fma(a, b, c), np.float32(expected))
