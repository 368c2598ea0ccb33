"""What an audit's figures are said to mean: each rule where it holds, and just beside it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from levit_deploy.audit.advice import next_steps
from levit_deploy.audit.result import FloatPlan, Limit, Sensitivity
from levit_deploy.audit.statistics import mcnemar, wilson
from levit_deploy.audit.verdict import conclude
from levit_deploy.audit.wording import (
    decibels,
    interval,
    listing,
    number,
    points,
    probability,
    share,
    signed,
    small,
)
from levit_deploy.calibration.recipe import RECIPES
from levit_deploy.runtime.manifest import Verdict
from tests.audit import sample


def sentence(result):
    return conclude(result).sentence.replace("\N{NO-BREAK SPACE}", " ")


def advice(result):
    steps = next_steps(result)
    text = "\n".join(f"{step.why}\n{step.command or ''}" for step in steps)
    return text.replace("\N{NO-BREAK SPACE}", " ")


def with_difference(result, lost, won):
    drop = 100 * (lost - won) / result.audited.images
    first = replace(
        result.differences[0], lost=lost, won=won, drop_points=drop, p_value=mcnemar(lost, won)
    )
    return replace(result, differences=(first, *result.differences[1:]))


def test_a_drop_within_the_limit_is_shipped():
    assert conclude(sample.passed()).verdict is Verdict.PASSED
    assert sentence(sample.passed()) == (
        "Ship it: top-1 falls by 0.2 points on 50,000 images, significant (p < 0.001); "
        "98.60 % of the answers stay the same."
    )


def test_what_so_few_images_cannot_tell_is_not_shipped():
    """A drop of 0.5 points where 1 % of the answers move: 1.96^2 * 0.01 / 0.005^2 = 1537; 98.6 %
    that are to be above 98 %: 1.96^2 * 0.98 * 0.02 / 0.006^2 = 2092."""
    result = sample.not_enough()
    assert result.images_needed == 2092
    assert sentence(result) == (
        "500 images cannot tell a drop of 0.5 points from chance, or whether 98 % of the answers "
        "stay the same; about 2,100 could. So far top-1 falls by 0.2 points on 500 images, not "
        "significant (p = 1.0); 98.6 % of the answers stay the same."
    )
    drop_alone = replace(result, limits=result.limits[:1])
    assert drop_alone.images_needed == 1537
    for few in (result, drop_alone):
        assert (conclude(few).verdict, few.passed) == (Verdict.NOT_ENOUGH, True)
        assert "Ship it" not in sentence(few)


def test_ship_it_is_never_said_above_images_that_cannot_tell():
    """Whatever was measured, on whatever number of images."""
    random, said = np.random.default_rng(0), set()
    for _ in range(300):
        images = int(random.integers(1, 4000))
        same = int(random.integers(int(0.95 * images), images + 1))
        lost, won = (int(n) for n in random.integers(0, 1 + images // 50, 2))
        result = sample.passed()
        fidelity = replace(result.fidelities[0], agreement=wilson(same, images))
        value = 100 * same / images
        limit = Limit("--min-agreement", "", 98.0, value, value >= 98.0)
        result = replace(
            with_difference(
                replace(result, audited=replace(result.audited, images=images)), lost, won
            ),
            fidelities=(fidelity,),
        )
        drop = result.differences[0].drop_points
        result = replace(result, limits=(Limit("--max-drop", "", 0.5, drop, drop <= 0.5), limit))
        shipped = "Ship it" in sentence(result)
        assert shipped == (result.verdict is Verdict.PASSED)
        if shipped:
            assert "cannot tell" not in advice(result)
            assert binomtest(same, images).proportion_ci(method="wilson").low >= 0.98
        said.add(result.verdict)
    assert said == {Verdict.PASSED, Verdict.NOT_ENOUGH, Verdict.FAILED}


@pytest.mark.parametrize(("right", "shipped"), [(48, False), (62, False), (80, True)])
def test_a_reference_that_only_guesses_is_never_shipped(right, shipped):
    """Of 500 images in 10 classes: labels in another order, or the wrong mean and std."""
    result = sample.passed()
    first, *others = result.accuracies
    guessing = replace(result, accuracies=(replace(first, top1=wilson(right, 500)), *others))
    assert (conclude(guessing).verdict is Verdict.PASSED) == bool(guessing) == shipped
    assert ("no better than guessing among 10 classes" in sentence(guessing)) != shipped
    assert ("--class-order" in advice(guessing)) != shipped


def test_features_are_judged_by_cosine_and_neighbours():
    assert sentence(sample.features()) == (
        "Ship it: 94.00 % of the images keep their nearest neighbour on 5,000 images; the cosine "
        "is 0.9971 on average, 0.9731 at worst."
    )
    first, second = sample.features().limits
    broken = replace(sample.features(), limits=(first, replace(second, value=0.9, passed=False)))
    assert conclude(broken).verdict is Verdict.FAILED
    assert "cosine of the features: 0.9, the limit is 0.99" in sentence(broken)


@pytest.mark.parametrize(
    ("lost", "won", "words"),
    [
        (5, 5, "top-1 is unchanged on 500 images"),
        (2, 7, "top-1 rises by 1 point on 500 images, not significant (p = 0.18)"),
        (30, 5, "top-1 falls by 5 points on 500 images, significant (p < 0.001)"),
    ],
)
def test_the_cost_in_words(lost, won, words):
    assert words in sentence(with_difference(sample.not_enough(), lost, won))


def test_who_it_is_held_against_is_named():
    result = sample.passed()
    turned = replace(
        result, fidelities=result.fidelities[::-1], differences=result.differences[::-1], limits=()
    )
    assert "top-1 is unchanged on 50,000 images against the 8-bit model; 99.6 % of" in sentence(
        turned
    )


def test_broken_limits_are_named_with_what_to_look_at():
    result = sample.failed()
    assert conclude(result).verdict is Verdict.FAILED
    assert sentence(result) == (
        "Do not ship: top-1 falls by 11.6 points, the limit is 0.5; 84 % of the answers stay the "
        "same, the limit is 98 %. Look at `blocks.8.m.proj.1` first."
    )
    other = replace(result, limits=(Limit("--min-sqnr", "the SQNR in dB", 30, 6.2, False),))
    assert "the SQNR in dB: 6.2, the limit is 30" in sentence(other)


def test_a_loss_is_laid_at_the_door_of_who_causes_it():
    result = replace(sample.failed(), suspect=None)
    assert "the library computes something else" in sentence(result)
    assert "levit-deploy verify" in advice(result)
    model = replace(result.fidelities[1], sqnr_db=7.0)
    alike = replace(result, fidelities=(result.fidelities[0], model))
    assert "it is the quantization, not the library" in sentence(alike)
    assert "levit-deploy verify" not in advice(alike)


def test_a_debug_build_that_differs_overrules_everything():
    result = sample.passed()
    result = replace(result, audited=replace(result.audited, taps_equal=False))
    assert conclude(result).verdict is Verdict.FAILED
    assert "debug build computes other logits" in sentence(result)
    assert advice(result).rstrip().endswith("--debug-taps")


def test_without_limits_nothing_is_judged():
    result = sample.unlabelled_float()
    assert conclude(result).verdict is Verdict.NOT_JUDGED
    assert "all answers stay the same on 64 images, which bear no labels" in sentence(result)
    assert "--data demo --min-agreement 98" in advice(result)  # a drop needs labels
    labelled = replace(sample.passed(), limits=())
    assert "--data demo --max-drop 0.5 --min-agreement 98" in advice(labelled)
    assert "Accuracy needs them" in advice(result)


def test_a_suspect_comes_first_and_alone():
    steps = next_steps(sample.failed())
    assert len(steps) == 1
    assert "`blocks.8.m.proj.1`" in steps[0].why


def test_the_number_of_images_is_a_step():
    few = replace(sample.not_enough(), limits=sample.not_enough().limits[:1])
    assert "500 images cannot tell a drop of 0.5 points from chance. About 1,600" in advice(few)
    none = with_difference(few, 0, 0)
    assert "500 images cannot tell a drop of 0.5 points from chance. About 600" in advice(none)
    many = sample.passed()
    assert "cannot tell" not in advice(many)
    assert advice(many).startswith("Nothing to mend")


def test_a_broken_limit_of_an_8_bit_model_leads_to_mixed_precision():
    broken = (Limit("--max-drop", "top-1 drop in points", 0.1, 0.2, False),)
    result = replace(sample.passed(), limits=broken)
    assert "--data demo --auto 0.5" in advice(result)
    layer = Sensitivity("blocks.3.m.0", 4.25, 0.004, 0.012)
    measured = replace(result, sensitivities=(layer,))
    assert "`blocks.3.m.0` in float32 gains 4.2 dB and takes 1.2 % more time" in advice(measured)
    fp32 = replace(result, audited=replace(result.audited, precision="fp32"))
    assert "--auto" not in advice(fp32)
    planned = replace(measured, plan=FloatPlan(0.5, ("blocks.3.m.0", "head"), 0.021, 0.39, 256))
    assert "with `blocks.3.m.0` and `head` so, on 256 images" in advice(planned)
    assert "loses 0.39 points, in 2.1 % more time" in advice(planned)
    assert "--recipe recipe.json" in advice(planned)
    assert "--auto" not in advice(planned)
    none = replace(measured, plan=FloatPlan(0.5, (), 0.0, 0.0, 256))
    assert "No layer needs float32 to stay within 0.5 points" in advice(none)
    assert "recipe.json" not in advice(none)


@pytest.mark.parametrize(
    ("figures", "recipe"),
    [({"clipped": 0.0011}, "w8a8-min-max"), ({"range_used": 0.2}, "w8a8-mse")],
)
def test_ranges_that_do_not_fit_lead_to_another_observer(figures, recipe):
    result = sample.passed()
    assert "--recipe" not in advice(result)
    bad = replace(result.tensors[7], **figures)
    text = advice(replace(result, tensors=(*result.tensors[:7], bad, *result.tensors[8:])))
    assert f"`{bad.tensor}`" in text
    assert f"--recipe {recipe}" in text
    assert recipe in RECIPES


def test_confidences_that_shifted_and_skipped_images_are_mentioned():
    result = sample.passed()
    shifted = replace(result.accuracies[1], calibration_error=0.06)
    result = replace(
        result,
        accuracies=(result.accuracies[0], shifted),
        audited=replace(result.audited, skipped=3),
    )
    assert "calibration error 2.1 % to 6.0 %" in advice(result)
    assert "3 broken images were left out" in advice(result)


def test_commands_quote_what_a_shell_would_split():
    result = sample.unlabelled_float()
    hostile = replace(
        result, audited=replace(result.audited, source="a b; rm -rf /", labelled=True)
    )
    assert "--data 'a b; rm -rf /' --max-drop" in advice(hostile)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number(-1234.5), "−1,234.50"),
        (number(-0.001), "0.00"),
        (signed(0.4), "+0.40"),
        (signed(-0.4, 1), "−0.4"),
        (signed(0.001), "0.00"),
        (points(1.0), "1 point"),
        (points(0.25), "0.25 points"),
        (decibels(None), "exact"),
        (probability(1.0), "p = 1.0"),
        (probability(0.0421), "p = 0.042"),
        (probability(1e-9), "p < 0.001"),
        (share(wilson(493, 500)), "98.6 %"),
        (share(wilson(49_300, 50_000)), "98.60 %"),
        (interval(wilson(493, 500)), "97.1 to 99.3 %"),
        (small(0.0), "0"),
        (small(0.74), "0.740"),
        (small(12.3456), "12.3"),
        (small(3.1e-12), "3.10 × 10⁻¹²"),
        (listing(("a", "b", "c`")), "`a`, `b` and `c'`"),
    ],
)
def test_how_figures_are_written(text, expected):
    assert text.replace("\N{NO-BREAK SPACE}", " ") == expected
