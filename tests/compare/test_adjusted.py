"""Arms at equal accuracy of their teachers: against statsmodels' least squares, and on planted teachers."""

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS

from crossdistill.compare.adjusted import Fit, adjusted_for_teachers
from crossdistill.stats import minimum_detectable_effect


def planted(generator, n_students, n_controls, *, effect=0.0, slope=0.8, apart=0.02, noise=0.012):
    """Figures that go with the teachers' accuracy by one slope, the students' higher by `effect`."""
    teachers = 0.82 + apart + generator.normal(0, 0.01, n_students)
    control_teachers = 0.82 + generator.normal(0, 0.01, n_controls)
    students = effect + slope * teachers + generator.normal(0, noise, n_students)
    return students, slope * control_teachers + generator.normal(0, noise, n_controls), teachers, control_teachers


@pytest.mark.parametrize(("n_students", "n_controls"), [(3, 3), (5, 4), (10, 10)])
def test_agrees_with_statsmodels(n_students, n_controls):
    data = planted(np.random.default_rng(n_students), n_students, n_controls, effect=0.02)
    group = np.repeat([1.0, 0.0], [n_students, n_controls])
    design = np.stack([np.ones_like(group), group, np.concatenate(data[2:])], axis=1)
    expected = OLS(np.concatenate(data[:2]), design).fit()
    found = adjusted_for_teachers(*data)
    assert found.difference.value == pytest.approx(expected.params[1], abs=1e-10)
    assert (found.difference.low, found.difference.high) == pytest.approx(tuple(expected.conf_int()[1]), abs=1e-9)
    assert found.p == pytest.approx(expected.pvalues[1], rel=1e-6)
    assert found.minimum_detectable == pytest.approx(minimum_detectable_effect(expected.bse[1], n_students + n_controls - 3), rel=1e-6)
    assert found.source == f"least squares on arm and the teachers' validation accuracy, t, {n_students} v {n_controls} runs"


def test_what_better_teachers_alone_have_done_is_taken_out():
    students, controls, teachers, control_teachers = planted(np.random.default_rng(0), 10, 10, slope=2.0, apart=0.03, noise=0.002)
    assert students.mean() - controls.mean() > 0.05
    found = adjusted_for_teachers(students, controls, teachers, control_teachers).difference
    assert found.value == pytest.approx(0, abs=0.005)
    assert found.low < 0 < found.high


def test_an_effect_beside_the_teachers_accuracy_is_found():
    found = adjusted_for_teachers(*planted(np.random.default_rng(1), 5, 5, effect=0.10))
    assert found.difference.low < 0.10 < found.difference.high
    assert found.p < 0.01


def test_the_runs_needed_are_those_at_which_such_a_study_finds_the_difference():
    found = adjusted_for_teachers(*planted(np.random.default_rng(2), 5, 5, effect=0.02))
    needed = found.runs_needed
    assert needed > 5
    generator, hits = np.random.default_rng(3), 0
    # The same design with more runs: covariates repeated about their means, residuals of the fit's size.
    students, controls, teachers, control_teachers = planted(np.random.default_rng(2), 5, 5, effect=0.02)
    group = np.repeat([1.0, 0.0], 5)
    design = np.stack([np.ones(10), group, np.concatenate([teachers, control_teachers])], axis=1)
    fit = OLS(np.concatenate([students, controls]), design).fit()

    def spread_out(values):
        repeated = np.resize(values, needed)
        # The sum of squares about the mean grows as runs - 1 does.
        centred = repeated - repeated.mean()
        return values.mean() + centred * values.std(ddof=1) / repeated.std(ddof=1)

    covariates = spread_out(teachers), spread_out(control_teachers)
    for _ in range(600):
        noise = generator.normal(0, np.sqrt(fit.scale), (2, needed))
        a = fit.params[1] + fit.params[2] * covariates[0] + noise[0]
        hits += adjusted_for_teachers(a, fit.params[2] * covariates[1] + noise[1], *covariates).p < 0.05
    assert 0.75 <= hits / 600 <= 0.90  # 80 %, rounded up to whole runs; 600 studies have a standard error of 1.6 %


def test_the_spread_at_other_numbers_of_runs_by_hand():
    fit = Fit(difference=0.0, residual_variance=2.0, apart=3.0, within=8.0, n=10)
    # At 5 and 5: 2 (1/5 + 1/5 + 9/8) = 3.05, 7 degrees of freedom. At 9 and 9 the sum of squares within arms grows from 8 on 8 degrees
    # of freedom to 16 on 16: 2 (2/9 + 9/16) = 1.5694, 15 degrees of freedom.
    assert fit.spread(5, 5) == pytest.approx((3.05**0.5, 7))
    assert fit.spread(9, 9) == pytest.approx((1.56944**0.5, 15), rel=1e-5)


def test_the_interval_covers_the_truth():
    generator = np.random.default_rng(4)
    found = [adjusted_for_teachers(*planted(generator, 3, 3, effect=0.05)).difference for _ in range(500)]
    assert 0.925 <= np.mean([e.low <= 0.05 <= e.high for e in found]) <= 0.98  # least squares is exact; a standard error of 1 %


THREE = np.array([0.5, 0.52, 0.51])
TEACHERS = np.array([0.8, 0.81, 0.83])


@pytest.mark.parametrize(
    ("students", "controls", "teachers", "control_teachers", "words"),
    [
        (THREE[:2], THREE, TEACHERS[:2], TEACHERS, "2 and 3 runs: adjusting for the teachers' accuracy takes at least 3 an arm"),
        (THREE, THREE[:1], TEACHERS, TEACHERS[:1], "3 and 1 runs"),
        (THREE, THREE, np.full(3, 0.8), TEACHERS, "all 3 students were taught at one validation accuracy, 80.0 %, as by one checkpoint"),
        (THREE, THREE, TEACHERS, np.full(3, 0.79), "all 3 controls were taught at one validation accuracy, 79.0 %"),
        (2 * TEACHERS, 2 * TEACHERS + 0.1, TEACHERS, TEACHERS, "accounts for every figure exactly"),
        (np.ones(3), np.zeros(3), TEACHERS, TEACHERS, "accounts for every figure exactly"),
    ],
)
def test_refuses_with_a_sentence_what_it_cannot_judge(students, controls, teachers, control_teachers, words):
    found = adjusted_for_teachers(students, controls, teachers, control_teachers)
    assert (found.difference.status, found.difference.value, found.p) == ("not_measurable", None, None)
    assert words in found.difference.reason
