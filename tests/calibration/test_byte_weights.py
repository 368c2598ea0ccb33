"""Convolutions whose weights get 8 bits: by how the error is measured, and what it is."""

import numpy as np
import pytest
import torch

from levit_deploy.calibration.byte_weights import LEAST_SQNR_DB, byte_weights
from levit_deploy.calibration.rounding import weight_scales_of_bytes
from levit_deploy.models.images import normalize
from tests.calibration.running import run

CHANNELS = 8


def windows(count: int, *, smooth: bool, seed: int = 0) -> np.ndarray:
    """(count, CHANNELS, 3, 3): noise, or noise around values that all places and channels share."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, CHANNELS, 3, 3))
    shared = rng.standard_normal((count, 1, 1, 1))
    return (shared + 0.1 * noise if smooth else noise).astype(np.float32)


def weights() -> np.ndarray:
    return np.random.default_rng(1).normal(1, 1, (16, CHANNELS, 3, 3))


def error_db(steps: np.ndarray, weight: np.ndarray, scales: np.ndarray, x: np.ndarray) -> float:
    """Signal to noise of the convolution's outputs, by PyTorch."""
    rounded = torch.from_numpy(steps * scales.astype(np.float64)[:, None, None, None])
    inputs = torch.from_numpy(x.astype(np.float64))
    wanted = torch.nn.functional.conv2d(inputs, torch.from_numpy(weight))
    error = torch.nn.functional.conv2d(inputs, rounded) - wanted
    return float(10 * torch.log10(wanted.square().sum() / error.square().sum()))


def test_errors_cancel_where_inputs_are_alike() -> None:
    weight, scales = weights(), weight_scales_of_bytes(weights())
    steps = byte_weights(weight, scales, windows(4000, smooth=True))
    assert steps is not None
    assert np.abs(steps.astype(int)).max() == 127
    unseen = windows(1000, smooth=True, seed=7)
    nearest = np.rint(weight / scales.astype(np.float64)[:, None, None, None])
    found = error_db(steps, weight, scales, unseen)
    assert found > LEAST_SQNR_DB
    assert found > error_db(nearest, weight, scales, unseen) + 6


@pytest.mark.parametrize(
    "seen",
    [
        None,
        windows(4000, smooth=False),
        windows(2 * 9 * CHANNELS - 1, smooth=True),
        np.zeros((4000, CHANNELS, 3, 3), np.float32),
    ],
    ids=["no pictures", "unlike inputs", "too few windows", "nothing but zeros"],
)
def test_weights_that_keep_16_bits(seen: np.ndarray | None) -> None:
    assert byte_weights(weights(), weight_scales_of_bytes(weights()), seen) is None


def test_weights_of_too_many_inputs_keep_16_bits() -> None:
    weight = np.ones((1, 230, 3, 3))
    seen = np.ones((2 * 9 * 230, 230, 3, 3), np.float32)
    assert byte_weights(weight, weight_scales_of_bytes(weight), seen) is None


def test_windows_are_what_a_convolution_multiplies(exported, statistics, pictures) -> None:
    """Windows times weights are its outputs, at places that wander over the pictures."""
    conv = exported.network.stem[1]
    images = np.concatenate([normalize(p[None], exported.normalization) for p in pictures])
    seen = statistics["patch_embed.1"].windows
    outputs = run(exported.graph, images, [conv.name])[conv.name]
    side, count = outputs.shape[-1], len(seen) // len(images)
    assert count == min(16384 // len(images), side**2)
    got = seen.reshape(len(seen), -1) @ conv.weight.reshape(conv.outputs, -1).T + conv.bias
    for number, image in enumerate(outputs):
        places = (np.arange(count) * side**2 // count + number) % side**2
        wanted = image.reshape(conv.outputs, -1).T[places]
        np.testing.assert_allclose(got[number * count :][:count], wanted, rtol=1e-4, atol=1e-4)
