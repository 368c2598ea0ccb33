"""Weights rounded so that their errors cancel: what is gained, what limits hold, what is kept."""

from dataclasses import replace

import numpy as np
import pytest

from levit_deploy.calibration.choose_scales import choose_scales
from levit_deploy.calibration.compensation import compensated_steps, linear_steps
from levit_deploy.calibration.packed_steps import pack_steps, unpack_steps
from levit_deploy.calibration.quantize import quantize
from levit_deploy.calibration.recipe import DEFAULT_RECIPE, RECIPES
from levit_deploy.calibration.rounding import weight_scales, weight_steps
from levit_deploy.compiler.kernels.gemm.int8_panels import within_limits
from levit_deploy.errors import DeployError

OUTPUTS = 40


def tokens(count: int, channels: int, seed: int) -> np.ndarray:
    """(count, channels): what a quarter as many hidden values say, and a little noise."""
    mixing = np.random.default_rng(0).standard_normal((channels // 4 + 1, channels))
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((count, len(mixing)))
    return hidden @ mixing + 0.1 * rng.standard_normal((count, channels))


def squares(count: int, channels: int, seed: int = 1) -> np.ndarray:
    x = tokens(count, channels, seed)
    return x.T @ x / count


def real_steps(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps that are not whole yet, and the nearest whole ones."""
    weight = np.random.default_rng(2).standard_normal((channels, OUTPUTS))
    scales = weight_scales(weight)
    return weight / scales.astype(np.float64), weight_steps(weight, scales)


@pytest.mark.parametrize("channels", [1, 2, 63, 64, 65, 131])
def test_errors_cancel_on_tokens_that_were_not_seen(channels: int) -> None:
    real, nearest = real_steps(channels)
    steps = compensated_steps(real, squares(4000, channels), paired=True)
    assert within_limits(steps)
    unseen = tokens(500, channels, seed=9)
    loss, nearest_loss = (np.square(unseen @ (s - real)).sum() for s in (steps, nearest))
    assert loss < (nearest_loss / 4 if channels > 2 else 1.001 * nearest_loss)


def test_inputs_with_nothing_in_common_get_the_nearest_steps() -> None:
    real, nearest = real_steps(20)
    assert np.array_equal(compensated_steps(real, np.eye(20), paired=True), nearest)


def test_limits_hold_where_everything_presses_against_them() -> None:
    real = np.full((6, OUTPUTS), 126.4)
    everything_alike = np.ones((6, 6)) + 1e-3 * np.eye(6)
    assert within_limits(compensated_steps(real, everything_alike, paired=True))
    assert compensated_steps(real, everything_alike, paired=False).max() == 127


def test_what_pictures_kept_back_do_not_confirm_stays_nearest() -> None:
    real, nearest = real_steps(64)
    like, unlike = squares(4000, 64), np.eye(64)
    assert linear_steps(real, nearest, like, unlike) is nearest
    assert linear_steps(real, nearest, like, like) is not nearest


def test_moments_are_those_of_the_tokens(statistics) -> None:
    """The sample has all tokens of a tensor of which there is one in each of the 32 images."""
    seen = statistics["head.mean"]
    assert len(seen.sample) == 32
    for half, moments in enumerate(seen.moments):
        rows = seen.sample[half::2].astype(np.float64)
        assert moments.tokens == 16
        np.testing.assert_allclose(moments.covariance(), np.cov(rows.T, ddof=0), atol=1e-9)
        factors = np.linspace(0.5, 2, rows.shape[1])
        scaled = np.cov((rows * factors).T, ddof=0)
        np.testing.assert_allclose(moments.scaled(factors).covariance(), scaled, atol=1e-9)


def test_the_table_says_what_quantize_does(exported, statistics, pictures) -> None:
    table = choose_scales(exported, statistics, pictures, DEFAULT_RECIPE)
    nearest = choose_scales(exported, statistics, pictures, RECIPES["w8a8-nearest"])
    changed = [layer for layer in table.layers if layer.roundings]
    assert len(changed) > len(table.layers) / 2
    assert not any(layer.roundings for layer in nearest.layers)
    found, plain = (
        {layer.name: layer for layer in quantize(exported, t).network.layers()}
        for t in (table, nearest)
    )
    for layer in table.layers:
        difference = found[layer.layer].weight - plain[layer.layer].weight
        assert difference.any() == bool(layer.roundings)
        assert within_limits(found[layer.layer].weight.T)


def test_no_pictures_no_compensation(exported, statistics) -> None:
    expected = {name: replace(seen, moments=None) for name, seen in statistics.items()}
    table = choose_scales(exported, expected, None, DEFAULT_RECIPE)
    assert not any(layer.roundings for layer in table.layers)


@pytest.mark.parametrize("shape", [(2, 3), (4, 5, 3, 3), (1,)])
def test_packed_steps_are_the_same_again(shape: tuple[int, ...]) -> None:
    steps = np.random.default_rng(3).integers(-128, 128, shape).astype(np.int8)
    assert np.array_equal(unpack_steps(pack_steps(steps), shape, "head"), steps)


@pytest.mark.parametrize(
    "packed",
    [
        b"no stream",
        pack_steps(np.zeros((2, 3), np.int8))[:6],
        pack_steps(np.zeros((2, 2), np.int8)),
        pack_steps(np.zeros(10**6, np.int8)),
    ],
    ids=["no stream", "cut off", "too few", "too many"],
)
def test_other_bytes_are_refused(packed: bytes) -> None:
    with pytest.raises(DeployError, match="damaged: weights of `head`"):
        unpack_steps(packed, (2, 3), "head")


def test_a_table_of_damaged_roundings_is_refused(exported, statistics, pictures) -> None:
    table = choose_scales(exported, statistics, pictures, DEFAULT_RECIPE)
    first, *others = table.layers
    spoilt = replace(table, layers=(replace(first, roundings=b"x"), *others))
    with pytest.raises(DeployError, match=f"damaged: weights of `{first.layer}`"):
        quantize(exported, spoilt)
