"""The interval of a mean over runs: over runs where there are enough of them, else over images."""

from typing import Any

import pytest

from crossdistill.core.records import ResultRow
from crossdistill.report.intervals import interval_of


def row(value: float | None, **changes: Any) -> ResultRow:
    plain = dict(run="kd-0", arm="kd", method="kd", teacher="vit", student="cnn", seed=0, probe="clean", level="", metric="accuracy")
    numbers = dict(value=value, low=0.5, high=0.7, n=100, unit="share", status="ok", reason=None)
    return ResultRow.model_validate({**plain, **numbers, **changes})


def test_three_runs_give_students_interval_over_runs() -> None:
    found = interval_of([row(0.6), row(0.62), row(0.64)])
    assert found is not None
    # sd 0.02, standard error 0.02 / sqrt(3) = 0.011547, t of 2 degrees of freedom 4.3027.
    assert (found.value, found.low, found.high) == (
        pytest.approx(0.62),
        pytest.approx(0.62 - 0.04968, abs=1e-5),
        pytest.approx(0.66968, abs=1e-5),
    )
    assert (found.over, found.n_runs) == ("runs", 3)
    assert found.words.replace("\u00a0", " ") == "62.0 % (57.0 to 67.0), 3 runs"


def test_fewer_runs_give_the_interval_over_images() -> None:
    found = interval_of([row(0.6, low=0.5, high=0.7), row(0.64, low=0.56, high=0.72)])
    assert found is not None
    assert (found.value, found.low, found.high, found.over) == (pytest.approx(0.62), pytest.approx(0.53), pytest.approx(0.71), "images")
    one = interval_of([row(0.6)])
    assert one is not None
    assert one.words.replace("\u00a0", " ") == "60.0 % (50.0 to 70.0), 1 run"


def test_runs_that_all_agree_are_not_certain_for_that() -> None:
    found = interval_of([row(1.0, low=0.963, high=1.0)] * 3)
    assert found is not None
    assert (found.value, found.low, found.high, found.over) == (1.0, pytest.approx(0.963), 1.0, "images")


def test_shares_stay_between_nothing_and_all_and_other_figures_do_not() -> None:
    shares = interval_of([row(0.9), row(0.97), row(1.0)])
    kept = interval_of([row(0.9, unit="retention"), row(0.97, unit="retention"), row(1.0, unit="retention")])
    assert shares is not None
    assert kept is not None
    assert shares.high == 1.0
    assert kept.high is not None
    assert kept.high > 1


def test_what_could_not_be_measured_is_left_out() -> None:
    lost = row(None, low=None, high=None, status="not_measurable", reason="at chance")
    assert interval_of([lost]) is None
    assert interval_of([]) is None
    found = interval_of([lost, row(float("nan")), row(0.6), row(0.7, low=None)])
    assert found is not None
    assert (found.n_runs, found.low, found.high) == (2, None, pytest.approx(0.7))
    assert found.words.replace("\u00a0", " ") == "65.0 %, 2 runs"
