"""tau on planted studies: by hand, against a slow reading of the pooled sum, where it is refused, and the trap of a shared baseline."""

import math
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from crossdistill.compare import ObservedRun, Pair
from crossdistill.compare.transfer import pooled_ratio, transfer_table
from crossdistill.core.records import ResultRow
from crossdistill.stats import fieller

PAIRS = [Pair(0, "vit", "cnn", ("kd",))]
LEVELS = ("grid=2", "grid=4")

# Accuracy on each probe by run seed. With T teacher, J second independent, S student, I independent:
# scramble: T - J = .40 .42 .38, S - I = .20 .22 .18; silhouette: T - J = .10 .12 .08, S - I = .02 .00 .04.
STUDY = {
    "teacher": {"scramble": (0.80, 0.81, 0.79), "silhouette": (0.50, 0.51, 0.49)},
    "independent": {"scramble": (0.41, 0.40, 0.42), "silhouette": (0.41, 0.42, 0.40)},
    "second_independent": {"scramble": (0.40, 0.39, 0.41), "silhouette": (0.40, 0.39, 0.41)},
    "kd": {"scramble": (0.61, 0.62, 0.60), "silhouette": (0.43, 0.42, 0.44)},
}


def rows_of(run, probe, value):
    """The rows of a probe's accuracy: two levels and their mean."""
    r = run.record
    facts = {
        "run": r.run,
        "arm": r.arm,
        "method": r.method,
        "teacher": r.teacher,
        "student": r.student,
        "seed": r.seed,
        "metric": "accuracy",
    }
    levels = {LEVELS[0]: value + 0.05, LEVELS[1]: value - 0.05, "auc": value}
    rest = {"low": None, "high": None, "n": 1000, "unit": "share", "status": "ok", "reason": None}
    return [ResultRow(probe=probe, level=level, value=figure, **facts, **rest) for level, figure in levels.items()]


@pytest.fixture
def planted(made):
    """A study of these accuracies {arm: {probe: by seed}}: its results table, runs and pairs. `clean` are clean accuracies by arm."""

    def build(study, *, clean=None, blank=(), n_teachers=None):
        runs, results = [], []
        for arm, of_arm in study.items():
            probes = {**of_arm, "clean": of_arm["scramble"]}
            for seed in range(len(probes["clean"])):
                taught_by = f"teacher-vit-{seed if n_teachers is None else min(seed, n_teachers - 1)}" if arm == "kd" else None
                who = (
                    {"student": "vit"} if arm == "teacher" else {"student": "cnn", "teacher": taught_by and "vit", "teacher_run": taught_by}
                )
                seen = {("clean", "", 0): made.seen(made.answers((clean or {}).get(arm, 0.9), seed))}
                for probe in of_arm:
                    within_reach = 0.1 if probe in blank else 0.8
                    seen |= {(probe, level, 0): made.seen(made.answers(within_reach, [seed, place])) for place, level in enumerate(LEVELS)}
                run = ObservedRun(made.record(arm, seed, **who), seen)
                runs.append(run)
                results += [row for probe in of_arm for row in rows_of(run, probe, of_arm[probe][seed])]
        for probe in blank:  # networks trained on the probe, one a level, that read nothing
            for level in LEVELS:
                runs.append(ObservedRun(made.record("ceiling", level == LEVELS[0]), {(probe, level, 0): made.seen(made.answers(0.1, 9))}))
        return results, runs, PAIRS

    return build


def by_probe(table):
    return {row.probe: row for row in table}


def changed(**arms):
    """The planted study with other accuracies of some arms on "scramble"."""
    return {arm: {**of_arm, "scramble": arms.get(arm, of_arm["scramble"])} for arm, of_arm in STUDY.items()}


def test_tau_is_the_ratio_of_mean_differences_with_fiellers_interval(planted):
    rows = by_probe(transfer_table(*planted(STUDY)))
    assert list(rows) == ["scramble", "silhouette", "all"]
    row = rows["scramble"]
    assert row.tau == pytest.approx(0.20 / 0.40)
    assert row.teacher_gap == pytest.approx(0.40)
    gaps = np.array([0.40, 0.42, 0.38])
    assert (row.gap_low, row.gap_high) == pytest.approx(tuple(ttest_1samp(gaps, 0).confidence_interval()))
    assert (row.low, row.high) == pytest.approx(fieller(np.array([0.20, 0.22, 0.18]), gaps)[1:])
    assert (row.pair, row.teacher, row.student, row.method, row.metric) == (0, "vit", "cnn", "kd", "accuracy")
    assert (row.level_or_auc, row.n_runs, row.status, row.reason) == ("auc", 3, "ok", None)


def test_the_pooled_tau_is_the_sum_of_products_over_the_sum_of_squared_gaps(planted):
    rows = by_probe(transfer_table(*planted(STUDY)))
    assert rows["silhouette"].tau == pytest.approx(0.02 / 0.10)
    # (.20 x .40 + .02 x .10) / (.40^2 + .10^2), and not the mean of .5 and .2
    assert rows["all"].tau == pytest.approx(0.082 / 0.17)
    a = 0.40 * np.array([0.20, 0.22, 0.18]) + 0.10 * np.array([0.02, 0.00, 0.04])
    b = 0.40 * np.array([0.40, 0.42, 0.38]) + 0.10 * np.array([0.10, 0.12, 0.08])
    assert (rows["all"].low, rows["all"].high) == pytest.approx(fieller(a, b)[1:])
    assert (rows["all"].teacher_gap, rows["all"].level_or_auc, rows["all"].status) == (None, "", "ok")


def test_students_that_are_their_teacher_have_tau_one(planted):
    study = {**STUDY, "kd": STUDY["teacher"], "independent": STUDY["second_independent"]}
    for row in transfer_table(*planted(study)):
        assert (row.tau, row.low, row.high) == pytest.approx((1, 1, 1), abs=1e-6)


def test_a_gap_under_5_points_is_no_denominator_and_leaves_the_pool(planted):
    study = {**STUDY, "teacher": {"scramble": (0.80, 0.81, 0.79), "silhouette": (0.44, 0.43, 0.45)}}
    rows = by_probe(transfer_table(*planted(study)))
    small = rows["silhouette"]
    assert (small.tau, small.low, small.status) == (None, None, "not_measurable")
    assert small.teacher_gap == pytest.approx(0.04)
    assert (
        small.reason == "teacher minus second independent, +4.0 points (4.0 to 4.0), is under 5 points: a ratio to it would be mostly noise"
    )
    assert rows["all"].tau == pytest.approx(rows["scramble"].tau)


def test_a_gap_that_is_not_told_from_zero_is_no_denominator(planted):
    rows = by_probe(transfer_table(*planted(changed(teacher=(0.80, 0.42, 0.60)))))
    assert rows["scramble"].gap_low < 0 < rows["scramble"].gap_high
    assert "is not told from zero: a ratio to it could be anything" in rows["scramble"].reason
    assert rows["all"].tau == pytest.approx(rows["silhouette"].tau)


def test_a_teacher_that_is_worse_gives_a_ratio_as_well(planted):
    rows = by_probe(transfer_table(*planted(changed(teacher=(0.20, 0.21, 0.19), kd=(0.31, 0.30, 0.32)))))
    assert rows["scramble"].tau == pytest.approx(-0.10 / -0.20)


def test_no_probe_with_a_gap_leaves_nothing_to_pool(planted):
    rows = transfer_table(*planted({**STUDY, "teacher": STUDY["second_independent"]}))
    assert {row.status for row in rows} == {"not_measurable"}
    assert rows[-1].reason == "none of 2 probes has a teacher's gap of which a ratio can be made"


def test_without_a_second_independent_arm_one_row_says_that_it_is_needed(planted):
    (row,) = transfer_table(*planted({arm: of_arm for arm, of_arm in STUDY.items() if arm != "second_independent"}))
    assert (row.probe, row.tau, row.status) == ("all", None, "not_measurable")
    assert row.reason.startswith("there is no second_independent arm")


def test_one_run_seed_makes_no_ratio(planted):
    (row,) = transfer_table(*planted({arm: {"scramble": of["scramble"][:1]} for arm, of in STUDY.items()}))
    assert (row.n_runs, row.status) == (1, "not_measurable")
    assert row.reason == "1 run seed has a student, its teacher, an independent and a second independent: a ratio takes at least 2"


def test_a_method_without_students_has_one_row_that_says_so(planted):
    (row,) = transfer_table(*planted({arm: of_arm for arm, of_arm in STUDY.items() if arm != "kd"}))
    assert (row.status, row.reason) == ("not_measurable", "no student run has been observed")


def test_run_seeds_that_lack_an_arm_are_left_out(planted):
    study = {**STUDY, "second_independent": {probe: of[:2] for probe, of in STUDY["second_independent"].items()}}
    rows = by_probe(transfer_table(*planted(study)))
    assert rows["scramble"].n_runs == 2
    assert rows["scramble"].tau == pytest.approx(0.21 / 0.41)


def test_one_teacher_checkpoint_is_said_beside_the_figure(planted):
    rows = by_probe(transfer_table(*planted(STUDY, n_teachers=1)))
    gap = fmean([0.80 - second for second in STUDY["second_independent"]["scramble"]])
    assert rows["scramble"].teacher_gap == pytest.approx(gap)
    assert {row.reason for row in rows.values()} == {"from one teacher checkpoint: the interval holds no spread between teachers"}


def test_what_a_method_adds_to_its_students_is_said_to_count_as_transfer(planted):
    results, runs, (pair,) = planted(STUDY)
    rows = by_probe(transfer_table(results, runs, [replace(pair, changed=frozenset({"kd"}))]))
    assert rows["scramble"].reason.startswith("a token, head or view that the method adds")
    assert rows["scramble"].tau == by_probe(transfer_table(results, runs, [pair]))["scramble"].tau


@pytest.mark.parametrize("arm", ["kd", "teacher", "independent", "second_independent"])
def test_a_network_that_fails_its_accuracy_gate_refuses_every_ratio(planted, arm):
    rows = transfer_table(*planted(STUDY, clean={arm: 0.12}))
    assert {row.status for row in rows} == {"not_measurable"}
    assert rows[0].reason.startswith(f"{arm}: ")
    assert "not clearly above the 10.0 % of chance" in rows[0].reason
    assert rows[0].teacher_gap is None


def test_a_probe_that_fails_its_signal_gate_is_refused_and_leaves_the_pool(planted):
    rows = by_probe(transfer_table(*planted(STUDY, blank=["silhouette"])))
    assert rows["silhouette"].reason.startswith("too little signal")
    assert (rows["silhouette"].tau, rows["silhouette"].teacher_gap) == (None, None)
    assert rows["all"].tau == pytest.approx(rows["scramble"].tau)


def test_a_run_without_the_figure_refuses_the_probe(planted):
    results, runs, pairs = planted(STUDY)
    lacking = [row for row in results if (row.run, row.probe) != ("kd-cnn-1", "silhouette")]
    unread = [row.model_copy(update={"value": None, "reason": "3 images"}) if row.probe == "silhouette" else row for row in results]
    assert by_probe(transfer_table(lacking, runs, pairs))["silhouette"].reason == "a student run does not have this figure"
    assert by_probe(transfer_table(unread, runs, pairs))["silhouette"].reason == "student run kd-cnn-0: 3 images"


def test_seeds_that_do_not_differ_give_nothing_to_judge_by(planted):
    flat = {"teacher": 0.8, "independent": 0.4, "second_independent": 0.4, "kd": 0.6}
    rows = transfer_table(*planted({arm: {"scramble": (value,) * 3} for arm, value in flat.items()}))
    assert rows[0].reason == "all 3 run seeds gave the same figures: there is no spread to judge by"


def test_the_clean_images_are_no_probe(planted):
    results, runs, pairs = planted(STUDY)
    clean = [row.model_copy(update={"probe": "clean", "level": ""}) for row in results if (row.probe, row.level) == ("scramble", "auc")]
    assert transfer_table([*results, *clean], runs, pairs) == transfer_table(results, runs, pairs)


def test_a_probe_of_one_level_is_read_at_that_level(planted):
    results, runs, pairs = planted(STUDY)
    runs = [ObservedRun(run.record, {key: seen for key, seen in run.observations.items() if key[1] != LEVELS[1]}) for run in runs]
    rows = transfer_table([row for row in results if row.level == LEVELS[0]], runs, pairs)
    assert [row.level_or_auc for row in rows] == [LEVELS[0], LEVELS[0], ""]
    assert rows[0].tau == pytest.approx(0.5)


def null_slopes(*, shared, n_studies=400):
    """Pooled slopes of studies without any effect or gap: six probes, five seeds, all networks alike."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(n_studies):
        student, teacher, independent, second = generator.normal(0.5, 0.0125, (4, 6, 5))
        found.append(pooled_ratio(student - independent, teacher - (independent if shared else second)).value)
    return np.median(found)


def test_independents_in_both_parts_make_half_a_transfer_out_of_nothing():
    assert null_slopes(shared=True) == pytest.approx(0.5, abs=0.06)
    assert null_slopes(shared=False) == pytest.approx(0.0, abs=0.06)


@pytest.mark.parametrize("n_seeds", [3, 5])
def test_the_pooled_interval_covers_the_true_ratio_although_its_weights_are_estimates(n_seeds):
    generator, covered = np.random.default_rng(n_seeds), 0
    for _ in range(500):
        independent, second, noise, teacher = generator.normal(0, 0.0125, (4, 3, n_seeds))
        teacher = teacher + np.array([[0.10], [0.08], [-0.12]])
        ratio = pooled_ratio(0.4 * teacher + noise - independent, teacher - second)
        covered += ratio.low is None or ratio.low <= 0.4 <= ratio.high
    assert 0.92 <= covered / 500 <= 0.98  # a standard error of 1 %


def test_no_figure_is_ever_nan(planted):
    for row in transfer_table(*planted(STUDY, blank=["silhouette"])):
        assert not any(isinstance(value, float) and math.isnan(value) for value in row.model_dump().values())
