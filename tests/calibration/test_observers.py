"""Each observer against a plain computation of what it claims."""

import numpy as np
import pytest

from levit_deploy.calibration.observers import (
    EXPECTED_IMAGES,
    PERCENTILE,
    Observer,
    observe,
)
from levit_deploy.calibration.statistics import TensorStatistics


def statistics_of(sample: np.ndarray, images: int = 64) -> TensorStatistics:
    """Statistics of images of equal numbers of tokens: `sample` (tokens, channels)."""
    by_image = sample.reshape(images, -1, sample.shape[1])
    lows, highs = by_image.min(axis=1), by_image.max(axis=1)
    return TensorStatistics(
        images,
        np.stack([lows[::2].min(axis=0), lows[1::2].min(axis=0)]),
        np.stack([highs[::2].max(axis=0), highs[1::2].max(axis=0)]),
        sample.astype(np.float32),
    )


@pytest.fixture
def normal():
    rng = np.random.default_rng(0)
    return statistics_of(rng.normal(0.5, 2.0, (4096, 32)))


def rounding_error(values, span):
    low, high = span
    step = (high - low) / 255
    rounded = low + np.clip(np.rint((values - low) / step), 0, 255) * step
    return ((values - rounded) ** 2).mean()


def test_min_max(normal):
    assert observe(Observer.MIN_MAX, normal) == (normal.sample.min(), normal.sample.max())


def test_percentile(normal):
    ordered = np.sort(normal.sample.ravel())
    low, high = observe(Observer.PERCENTILE, normal)
    rank = (len(ordered) - 1) * PERCENTILE / 100
    assert ordered[int(rank)] <= high <= ordered[int(rank) + 1]
    assert ordered[-int(rank) - 2] <= low <= ordered[-int(rank) - 1]


def test_mse_is_the_least_of_all_ranges():
    """Heavy tails: the best range is well inside the one seen."""
    values = np.random.default_rng(1).laplace(0, 1, (4096, 8)) ** 3
    seen = statistics_of(values)
    low, high = observe(Observer.MSE, seen)
    assert low > values.min() or high < values.max()
    best = min(
        rounding_error(values, (values.min() * a, values.max() * b))
        for a in np.linspace(0.4, 1, 19)
        for b in np.linspace(0.4, 1, 19)
    )
    assert rounding_error(values, (low, high)) < 1.02 * best


def divergence(values, span):
    """KL of the clipped histogram and its 256 levels, bin by bin."""
    low, high = span
    counts, edges = np.histogram(values, 2048, range=(values.min(), values.max()))
    p, outside, bins = {}, [0, 0], []
    for index, count in enumerate(counts):
        centre = (edges[index] + edges[index + 1]) / 2
        if centre < low:
            outside[0] += count
        elif centre > high:
            outside[1] += count
        else:
            bins.append((round((centre - low) / (high - low) * 255), count))
    p = [count for _, count in bins]
    p[0] += outside[0]
    p[-1] += outside[1]
    q = []
    for (level, _), with_outside in zip(bins, p, strict=True):
        same = [i for i, (other, _) in enumerate(bins) if other == level and p[i] > 0]
        q.append(sum(bins[i][1] for i in same) / len(same) if with_outside > 0 else 0)
    total = sum(p), sum(q)
    return sum(
        a / total[0] * np.log((a / total[0]) / (max(b, 1e-10) / total[1]))
        for a, b in zip(p, q, strict=True)
        if a > 0
    )


def test_entropy_is_the_least_divergence():
    values = np.random.default_rng(2).laplace(0, 1, (2048, 4)) ** 3
    values = values[(np.abs(values) < 60).all(axis=1)][:1024]
    found = divergence(values, observe(Observer.ENTROPY, statistics_of(values)))
    for a in (0.4, 0.6, 0.8, 1.0):
        for b in (0.4, 0.6, 0.8, 1.0):
            assert found <= divergence(values, (values.min() * a, values.max() * b)) + 1e-9


@pytest.mark.parametrize("images", [32, 128])
def test_the_extrapolated_range_is_what_more_images_fill(images):
    """Exponential tails, for which the theory holds: maxima grow by log 2 with each doubling."""
    rng = np.random.default_rng(3)
    tokens, channels = 4, 64
    sample = rng.exponential(1.0, (images * tokens, channels)) - 0.375
    low, high = observe(Observer.EXTRAPOLATED, statistics_of(sample, images))
    grown = sample.max() * np.log(EXPECTED_IMAGES * tokens) / np.log(images * tokens)
    assert high == pytest.approx(grown, rel=0.12)
    assert low == pytest.approx(-0.375, rel=0.15)  # a hard bound, as hardswish has: no growth


def test_more_images_than_expected_extrapolate_nothing(normal):
    many = TensorStatistics(EXPECTED_IMAGES, normal.lows, normal.highs, normal.sample)
    assert observe(Observer.EXTRAPOLATED, many) == observe(Observer.MIN_MAX, many)


@pytest.mark.parametrize("observer", Observer)
@pytest.mark.parametrize(("value", "low", "high"), [(3.0, 0, 3), (-3.0, -3, 0), (0.0, 0, 0)])
def test_a_constant_tensor_spans_from_zero(observer, value, low, high):
    constant = statistics_of(np.full((128, 8), value))
    got = observe(observer, constant)
    assert got[0] <= 0 <= got[1]
    np.testing.assert_allclose(got, (low, high), rtol=0.02)
