"""How many images could tell, against scipy: so many do, and noticeably fewer do not."""

import math

import pytest
from scipy.stats import binom, binomtest

from levit_deploy.audit.sample_size import images_for_drop, images_for_share


@pytest.mark.parametrize(
    ("moved", "drop"),
    [(0.004, 0.002), (0.01, 0.002), (0.01, 0.005), (0.05, 0.005), (0.05, 0.01), (0.2, 0.01)],
)
def test_a_drop_of_that_size_is_significant_then(moved, drop):
    """Exact two-sided binomial test of what is lost against what is won, as McNemar's."""
    needed = images_for_drop(1000, round(1000 * moved), drop)

    def p_value(images):
        discordant, net = round(images * moved), images * drop
        return binomtest(round((discordant + net) / 2), discordant).pvalue

    assert p_value(1.5 * needed) < 0.05 < p_value(0.6 * needed)


@pytest.mark.parametrize("drop", [0.002, 0.005, 0.05])
def test_where_nothing_moved_a_drop_had_shown_itself(drop):
    needed = images_for_drop(500, 0, drop)
    assert binom.pmf(0, needed, drop) <= 0.05 < binom.pmf(0, needed * 19 // 20, drop)


@pytest.mark.parametrize(
    ("count", "images", "limit"),
    [(64, 64, 0.98), (1986, 2000, 0.99), (986, 1000, 0.98), (19, 20, 0.9), (97, 100, 0.95)],
)
def test_the_interval_of_a_share_is_above_the_limit_then(count, images, limit):
    needed = images_for_share(images, count, limit)

    def low(times):
        scaled = math.ceil(needed * times / images)  # whole counts of the same share
        return binomtest(scaled * count, scaled * images).proportion_ci(method="wilson").low

    assert low(1.0) >= limit
    assert low(0.5) < limit


def test_a_share_at_its_limit_needs_many():
    assert images_for_share(100, 98, 0.98) == images_for_share(200, 197, 0.98)
    assert images_for_share(100, 98, 0.98) > 2000
    assert images_for_share(100, 100, 1.0) == 0
