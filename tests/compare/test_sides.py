"""The mean excess of students that side with their teacher: against scipy's one-sample t, and what one run allows."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from statsmodels.stats.power import TTestPower

from crossdistill.compare.evidence import OF_IMAGES
from crossdistill.compare.sides import mean_excess
from crossdistill.core.records import ResultRow

NONE = (None,) * 4


def row(value, seed=0, **more):
    interval = {"low": None, "high": None} if value is None else {"low": value - 0.05, "high": value + 0.04}
    status = {"status": "not_measurable", "reason": "3 images"} if value is None else {"status": "ok", "reason": None}
    place = {"probe": "scramble", "level": "auc", "metric": "side_with_teacher_excess", "n": 100, "unit": "difference"}
    facts = {"run": f"kd-cnn-{seed}", "arm": "kd", "method": "kd", "teacher": "vit", "student": "cnn", "seed": seed, "value": value}
    return ResultRow(**{**facts, **interval, **status, **place, **more})


def rows(values):
    return [row(value, seed) for seed, value in enumerate(values)]


@pytest.mark.parametrize("excesses", [[0.10, 0.14], [0.02, -0.01, 0.05, 0.03, 0.00]])
def test_is_students_t_over_run_seeds(excesses):
    expected = ttest_1samp(excesses, 0)
    interval = expected.confidence_interval()
    found = mean_excess(rows(excesses))
    assert found.difference.value == pytest.approx(np.mean(excesses))
    assert (found.p, found.difference.low, found.difference.high) == pytest.approx((expected.pvalue, interval.low, interval.high))
    assert (found.difference.n, found.source) == (len(excesses), f"Student's t over the excesses of {len(excesses)} runs")


def test_the_smallest_detectable_excess_and_the_runs_needed_agree_with_statsmodels():
    excesses = np.array([0.02, -0.01, 0.05, 0.03, 0.00])
    found, deviation = mean_excess(rows(excesses)), excesses.std(ddof=1)
    expected = TTestPower().solve_power(nobs=5, alpha=0.05, power=0.8) * deviation
    assert found.minimum_detectable == pytest.approx(expected, rel=1e-4)
    assert found.runs_needed == int(np.ceil(TTestPower().solve_power(effect_size=excesses.mean() / deviation, alpha=0.05, power=0.8)))


def test_excesses_are_paired_and_not_two_arms():
    # Rates that vary by 20 points from seed to seed, with their teachers: a constant excess of about 3 points is plain to see.
    found = mean_excess(rows([0.030, 0.031, 0.029]))
    assert found.p < 0.001


def test_one_run_has_its_interval_over_images_and_no_p():
    found = mean_excess([row(0.10)])
    assert (found.difference.value, found.difference.low, found.difference.high) == pytest.approx((0.10, 0.05, 0.14))
    assert (found.p, found.minimum_detectable, found.runs_needed, found.source) == (None, None, None, OF_IMAGES)


@pytest.mark.parametrize(
    ("given", "value", "words"),
    [
        ([], None, "no student run has this figure"),
        ([row(0.1), row(None, 1)], None, "student run kd-cnn-1: 3 images"),
        ([row(0.1), row(0.1, 1)], 0.1, "all 2 runs gave the same excess: there is no spread between runs to judge by"),
        ([row(0.1, low=None)], 0.1, "no interval over images (the bare difference of +10.0 points is no claim)"),
    ],
)
def test_says_why_nothing_can_be_judged(given, value, words):
    found = mean_excess(given)
    assert (found.difference.status, found.difference.value) == ("not_measurable", value)
    assert words in found.difference.reason
    assert (found.difference.low, found.p, found.minimum_detectable, found.runs_needed) == NONE
