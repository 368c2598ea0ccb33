"""The statistics of an audit against scipy, statsmodels and torch, on random cases."""

import math
from dataclasses import astuple

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import proportion_confint

from levit_deploy.audit.neighbours import same_neighbours
from levit_deploy.audit.result import Output, RunnerName
from levit_deploy.audit.statistics import (
    CalibrationBins,
    FidelitySums,
    as_classes,
    cosine,
    difference,
    divergence,
    mcnemar,
    ranks,
    softmax,
    sqnr_db,
    wilson,
)

COUNTS = st.integers(0, 400)


@st.composite
def shares(draw):
    total = draw(st.integers(1, 60_000))
    return draw(st.one_of(st.just(0), st.just(total), st.integers(0, total))), total


@st.composite
def logits(draw):
    """Reference, artifact, labels: some images alike to the bit, some far off."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 40)), draw(st.integers(2, 12)))
    reference = (random.normal(size=shape) * draw(st.floats(0.1, 60))).astype(np.float32)
    noise = random.normal(size=shape) * draw(st.sampled_from((0.0, 0.01, 0.3, 10.0)))
    noise[random.random(shape[0]) < 0.2] = 0.0
    labels = random.integers(0, shape[1], shape[0])
    return reference, (reference + noise).astype(np.float32), labels


@given(shares())
def test_wilson_agrees_with_statsmodels_and_scipy(share):
    count, total = share
    ours = wilson(count, total)
    assert (ours.count, ours.total) == share
    expected = proportion_confint(count, total, method="wilson")
    np.testing.assert_allclose((ours.low, ours.high), expected, rtol=1e-9, atol=1e-12)
    interval = scipy.stats.binomtest(count, total).proportion_ci(method="wilson")
    np.testing.assert_allclose((ours.low, ours.high), (interval.low, interval.high), atol=1e-12)
    assert 0.0 <= ours.low <= ours.value <= ours.high <= 1.0


@pytest.mark.parametrize("share", [(0, 0), (-1, 3), (4, 3)])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(ValueError, match="is no share"):
        wilson(*share)


@given(COUNTS, COUNTS)
def test_mcnemar_agrees_with_statsmodels_and_scipy(lost, won):
    ours = mcnemar(lost, won)
    table = [[0, lost], [won, 0]]
    assert ours == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue, rel=1e-10)
    if lost + won:
        assert ours == pytest.approx(scipy.stats.binomtest(lost, lost + won).pvalue, rel=1e-10)


def test_mcnemar_on_more_flips_than_floats_can_count():
    assert mcnemar(24_000, 26_000) == pytest.approx(
        scipy.stats.binomtest(24_000, 50_000).pvalue, rel=1e-9
    )


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_the_difference_is_paired(pairs):
    right, reference_right = np.array(pairs).T
    ours = difference(RunnerName.ARTIFACT, RunnerName.REFERENCE, right, reference_right)
    drop = 100 * (reference_right.mean() - right.mean())
    assert ours.drop_points == pytest.approx(drop, abs=1e-9)
    table = [[(right & reference_right).sum(), ours.lost], [ours.won, 0]]
    assert ours.p_value == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)


@given(logits())
def test_ranks_agree_with_argmax_and_torch(case):
    reference, _, labels = case
    reference = np.round(reference)  # with draws
    ours = ranks(reference, labels)
    np.testing.assert_array_equal(ours == 0, reference.argmax(axis=1) == labels)
    order = torch.sort(torch.from_numpy(reference), dim=1, descending=True, stable=True).indices
    expected = (order == torch.from_numpy(labels)[:, None]).nonzero()[:, 1]
    np.testing.assert_array_equal(ours, expected.numpy())


@given(logits())
def test_softmax_and_divergence_agree_with_scipy_and_torch(case):
    reference, actual, _ = case
    expected = scipy.special.softmax(reference.astype(np.float64), axis=1)
    np.testing.assert_allclose(softmax(reference), expected, rtol=1e-12, atol=1e-300)
    theirs = torch.nn.functional.kl_div(
        torch.from_numpy(actual).double().log_softmax(1),
        torch.from_numpy(reference).double().log_softmax(1),
        reduction="none",
        log_target=True,
    ).sum(1)
    np.testing.assert_allclose(divergence(reference, actual), theirs, rtol=1e-9, atol=1e-12)


def test_divergence_is_finite_where_probabilities_round_to_zero():
    far = np.array([[0.0, 3000.0]], np.float32)
    assert divergence(far, -far)[0] == pytest.approx(3000.0)


@given(logits(), st.integers(1, 7))
def test_calibration_error_does_not_depend_on_the_chunks(case, chunk):
    reference, _, labels = case
    bins = CalibrationBins()
    for start in range(0, len(labels), chunk):
        bins.add(reference[start : start + chunk], labels[start : start + chunk])
    assert bins.error == pytest.approx(plain_calibration_error(reference, labels), abs=1e-12)
    assert sum(one.images for one in bins.bins) == len(labels)
    whole = sum(one.images * abs(one.accuracy - one.confidence) for one in bins.bins)
    assert whole / len(labels) == pytest.approx(bins.error, abs=1e-12)


def plain_calibration_error(logits, labels):
    """Guo et al., equation 3, bin after bin as written there."""
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=1)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for m in range(1, 16):
        inside = (confidence > (m - 1) / 15) & (confidence <= m / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@settings(deadline=None)
@given(logits(), st.integers(1, 7))
def test_fidelity_agrees_with_numpy_over_everything_at_once(case, chunk):
    reference, actual, _ = case
    sums = FidelitySums()
    for start in range(0, len(reference), chunk):
        sums.add(reference[start : start + chunk], actual[start : start + chunk])
    ours = sums.fidelity(RunnerName.ARTIFACT, RunnerName.REFERENCE)

    r, a = reference.astype(np.float64), actual.astype(np.float64)
    agreeing = int((reference.argmax(1) == actual.argmax(1)).sum())
    assert astuple(ours.agreement) == astuple(wilson(agreeing, len(r)))
    assert ours.largest_error == np.abs(a - r).max()
    pairs = zip(reference, actual, strict=True)
    assert ours.equal_bits == sum(x.tobytes() == y.tobytes() for x, y in pairs)
    similar = torch.nn.functional.cosine_similarity(torch.from_numpy(r), torch.from_numpy(a))
    assert ours.cosine is not None
    assert ours.cosine.mean == pytest.approx(similar.mean().item(), abs=1e-9)
    wanted = torch.quantile(similar, torch.tensor([0, 0.01, 0.05, 0.5], dtype=similar.dtype))
    found = astuple(ours.cosine)[1:]
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    assert ours.divergence == pytest.approx(divergence(reference, actual).mean(), abs=1e-12)
    if (a == r).all():
        assert ours.sqnr_db is None
    else:
        expected = 10 * math.log10((r**2).sum() / ((a - r) ** 2).sum())
        assert ours.sqnr_db == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_one_logit_is_judged_by_its_sign_and_its_error(seed):
    """Against torch's sigmoid and binary cross entropy, and numpy's standard deviation."""
    random = np.random.default_rng(seed)
    reference = random.normal(3.0, 2.0, (30, 1)).astype(np.float32)
    actual = reference + random.normal(0.0, 0.5, (30, 1)).astype(np.float32)
    sums = FidelitySums(Output.LOGIT)
    for start in range(0, 30, 7):
        sums.add(reference[start : start + 7], actual[start : start + 7])
    ours = sums.fidelity(RunnerName.ARTIFACT, RunnerName.REFERENCE)
    assert ours.agreement.count == ((reference > 0) == (actual > 0)).sum()
    r, a = reference.astype(np.float64), actual.astype(np.float64)
    error = np.sqrt(np.mean((a - r) ** 2)) / np.std(r)
    assert ours.spread_error == pytest.approx(error, rel=1e-9)
    assert ours.cosine is None
    p = torch.sigmoid(torch.from_numpy(r))
    entropies = [
        torch.nn.functional.binary_cross_entropy_with_logits(torch.from_numpy(x), p) for x in (a, r)
    ]
    assert ours.divergence == pytest.approx((entropies[0] - entropies[1]).item(), abs=1e-9)
    probabilities = softmax(as_classes(reference, Output.LOGIT))
    np.testing.assert_allclose(probabilities[:, 1:], p, atol=1e-12)


def test_a_logit_that_never_changes_has_no_spread():
    same = np.full((5, 1), 0.1, np.float32)
    sums = FidelitySums(Output.LOGIT)
    sums.add(same, same + np.float32(0.5))
    assert sums.fidelity(RunnerName.ARTIFACT, RunnerName.REFERENCE).spread_error is None


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_neighbours_agree_with_torch(seed, images):
    """Each image against all others, one pair at a time; some images are there twice."""
    random = np.random.default_rng(seed)
    reference = random.normal(size=(images, 6)).astype(np.float32)
    reference[images // 2] = reference[0]
    actual = reference + random.normal(0, 0.4, reference.shape).astype(np.float32)
    actual[images // 2] = actual[0]
    pair = RunnerName.ARTIFACT, RunnerName.REFERENCE
    both = {RunnerName.ARTIFACT: actual, RunnerName.REFERENCE: reference}
    r, a = (torch.from_numpy(rows).double() for rows in (reference, actual))

    def similar(rows, i):
        alike = torch.nn.functional.cosine_similarity(rows[i : i + 1], rows)
        alike[i] = -1
        return alike

    expected = sum(
        bool(similar(r, i)[similar(a, i).argmax()] >= similar(r, i).max() - 1e-9)
        for i in range(images)
    )
    assert same_neighbours(both, [pair]) == {pair: expected}
    assert same_neighbours(dict.fromkeys(pair, reference), [pair]) == {pair: images}


def test_blocks_of_neighbours_are_one_set(monkeypatch):
    random = np.random.default_rng(0)
    reference = random.normal(size=(50, 6)).astype(np.float32)
    actual = reference + random.normal(0, 0.4, reference.shape).astype(np.float32)
    pair = RunnerName.ARTIFACT, RunnerName.REFERENCE
    both = {RunnerName.ARTIFACT: actual, RunnerName.REFERENCE: reference}
    whole = same_neighbours(both, [pair])
    assert 0 < whole[pair] < 50
    monkeypatch.setattr("levit_deploy.audit.neighbours._ROWS", 7)
    assert same_neighbours(both, [pair]) == whole


def test_the_same_chunks_give_the_same_bits():
    random = np.random.default_rng(0)
    reference = random.normal(size=(256, 10)).astype(np.float32)
    actual = reference + random.normal(size=reference.shape).astype(np.float32) / 50

    def once():
        sums = FidelitySums()
        for start in range(0, 256, 64):
            sums.add(reference[start : start + 64], actual[start : start + 64])
        return sums.fidelity(RunnerName.ARTIFACT, RunnerName.REFERENCE)

    assert once() == once()


def test_a_reference_of_zeros_has_finite_figures():
    assert sqnr_db(4.0, 0.0) is None
    assert math.isfinite(sqnr_db(0.0, 4.0))
    assert sqnr_db(0.0, 4.0) < -1000
    assert (cosine(0.0, 0.0, 0.0), cosine(0.0, 1.0, 0.0)) == (1.0, 0.0)


def test_a_zero_of_the_other_sign_is_another_byte():
    sums = FidelitySums()
    sums.add(np.array([[0.0, 1.0]], np.float32), np.array([[-0.0, 1.0]], np.float32))
    fidelity = sums.fidelity(RunnerName.ARTIFACT, RunnerName.REFERENCE)
    assert (fidelity.equal_bits, fidelity.sqnr_db) == (0, None)
