"""The inheritance table against every control arm, on planted figures; corrections, limits and what single runs allow."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import false_discovery_control, t, ttest_1samp, ttest_ind

from crossdistill.compare import Contrast, ObservedRun, Pair, inheritance_table, results_table
from crossdistill.compare.accuracy_matched import Accuracies, accuracy_matched
from crossdistill.compare.evidence import OF_IMAGES
from crossdistill.core.records import Against, EstimateModel, Verdict
from crossdistill.stats import wilson

PAIR = Pair(0, "vit", "cnn", ("kd",), control_teacher="resnet")
SEEDS = range(5)

# One figure a run: what makes them run means with a spread, the same for nobody.
TEACHERS = [0.80, 0.81, 0.79, 0.82, 0.80]
INDEPENDENTS = [0.40, 0.42, 0.39, 0.41, 0.40]
STUDENTS = [0.62, 0.60, 0.63, 0.61, 0.60]
TWINS = [0.50, 0.52, 0.49, 0.53, 0.50]
SHUFFLED = [0.45, 0.47, 0.44, 0.46, 0.49]
MATCHED = [0.58, 0.60, 0.57, 0.59, 0.61]
WITH_CONTROL = [0.52, 0.51, 0.54, 0.50, 0.53]
CONTROL_TEACHERS = [0.60, 0.63, 0.58, 0.62, 0.61]
EARLIER_TEACHERS = [0.78, 0.76, 0.79, 0.77, 0.78]


def fill(planted, *, without=(), apart=0.01, **figures):
    """A study of one pair with every control arm but those `without`; the teachers of both families are `apart` in validation accuracy."""
    of_arms = {
        "independent": INDEPENDENTS, "kd": STUDENTS, "kd+twin": TWINS, "kd+shuffled_teacher": SHUFFLED,
        "kd+matched_teacher": MATCHED, "kd+control_teacher": WITH_CONTROL, **figures,
    }  # fmt: skip
    theirs = [0.70, 0.71, 0.69, 0.72, 0.70]
    teachers = planted.arm("teacher", TEACHERS, student="vit", validation=[0.9] * 5)
    rivals = planted.arm("teacher", CONTROL_TEACHERS, student="resnet", validation=theirs)
    earlier = planted.arm("earlier_teacher", EARLIER_TEACHERS, student="vit", validation=[share + apart for share in theirs])
    taught = {"kd": ("vit", teachers), "kd+shuffled_teacher": ("vit", teachers), "kd+matched_teacher": ("vit", earlier)}
    taught["kd+control_teacher"] = ("resnet", rivals)
    for arm, values in of_arms.items():
        if arm not in without:
            teacher, by = taught.get(arm, (None, [None] * 5))
            planted.arm(arm, values, teacher=teacher, taught_by=by[: len(values)])
    return planted


def table(planted, pair=PAIR, primary=()):
    return inheritance_table(planted.results, planted.runs, [pair], primary)


def look(rows, **wanted):
    found = [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]
    assert len(found) == 1, found
    return found[0]


def add_shorter_independents(planted):
    """Independents of three further budgets near a line, and the students' clean accuracy inside their range."""
    clean = dict(probe="clean", level="")
    planted.figures([f"independent-cnn-{s}" for s in SEEDS], [0.80, 0.81, 0.79, 0.80, 0.82], **clean)
    planted.figures([f"kd-cnn-{s}" for s in SEEDS], [0.75, 0.76, 0.74, 0.75, 0.77], **clean)
    for place, arm in enumerate(("independent_40", "independent_60", "independent_80")):
        names = planted.arm(arm, [0.25 + 0.05 * place + 0.005 * s for s in SEEDS])
        planted.figures(names, [0.60 + 0.06 * place + 0.006 * s for s in SEEDS], **clean)
    return planted


def add_siding(planted, excess=(0.10, 0.12, 0.08, 0.11, 0.09), second=(0.55, 0.56, 0.54, 0.57, 0.53)):
    """Second independents, and how students take sides beside them."""
    planted.arm("second_independent", INDEPENDENTS[: len(excess)])
    students = [f"kd-cnn-{s}" for s in range(len(excess))]
    for siding in ("side_with_teacher", "side_with_teacher_wrong"):
        planted.figures(students, excess, metric=f"{siding}_excess", unit="difference")
        planted.figures(students, second, metric=f"{siding}_second_rate")
    return planted


# What is subtracted from what.


@pytest.mark.parametrize(
    ("against", "students", "controls", "gap_of", "gap_to"),
    [
        ("independent", STUDENTS, INDEPENDENTS, TEACHERS, INDEPENDENTS),
        ("twin", STUDENTS, TWINS, TEACHERS, INDEPENDENTS),
        ("shuffled_teacher", STUDENTS, SHUFFLED, TEACHERS, INDEPENDENTS),
        ("control_teacher", MATCHED, WITH_CONTROL, EARLIER_TEACHERS, CONTROL_TEACHERS),
    ],
)
def test_each_control_is_compared_by_welch_beside_its_own_gap(planted, against, students, controls, gap_of, gap_to):
    row = look(table(fill(planted)), contrast=against)
    expected, gap = ttest_ind(students, controls, equal_var=False), ttest_ind(gap_of, gap_to, equal_var=False)
    interval, reach = expected.confidence_interval(), gap.confidence_interval()
    assert (row.difference, row.low, row.high, row.p_raw) == pytest.approx(
        (np.mean(students) - np.mean(controls), interval.low, interval.high, expected.pvalue), abs=1e-9
    )
    assert (row.teacher_gap, row.gap_low, row.gap_high) == pytest.approx(
        (np.mean(gap_of) - np.mean(gap_to), reach.low, reach.high), abs=1e-9
    )
    assert (row.verdict, row.n_runs, row.n_teachers, row.p_source) == ("inherited", 5, 5, "Welch t on run means, 5 v 5 runs")


def test_only_contrasts_whose_control_arm_has_runs_have_rows(planted):
    assert [row.contrast for row in table(fill(planted, without=("kd+twin", "kd+shuffled_teacher", "kd+matched_teacher")))] == [
        "independent", "control_teacher", "control_teacher_adjusted",
    ]  # fmt: skip


def test_an_arm_that_lost_its_runs_is_not_dropped_where_the_other_side_of_the_control_teacher_stands(planted):
    rows = table(fill(planted, without=("kd+control_teacher",)))
    row = look(rows, contrast="control_teacher")
    assert (row.verdict, row.reason) == ("not_measurable", "no control_teacher run has this figure")


@pytest.mark.parametrize("against", get_args(Against))
def test_a_declared_contrast_without_its_arm_stays_and_counts_in_the_family(planted, against):
    planted.arm("teacher", TEACHERS, student="vit")
    rows = table(planted, primary=[Contrast(0, "kd", "scramble", against)])
    assert [(row.role, row.contrast, row.verdict, row.family_size) for row in rows] == [("primary", against, "not_measurable", 1)]
    assert "has this figure" in rows[0].reason
    assert (rows[0].p_holm, rows[0].p_source) == (None, "")


def test_controls_of_other_pairs_and_methods_are_left_alone(planted):
    fill(planted)
    planted.arm("kd+shuffled_teacher", [0.1] * 5, student="vgg", teacher="vit")
    planted.arm("crd+shuffled_teacher", [0.2] * 5, teacher="vit")
    before = look(table(planted), contrast="shuffled_teacher").difference
    planted.arm("kd+shuffled_teacher", [0.3] * 5, student="small", teacher="swin")
    assert look(table(planted), contrast="shuffled_teacher").difference == before == pytest.approx(np.mean(STUDENTS) - np.mean(SHUFFLED))


# Matched in accuracy.


def test_the_accuracy_matched_contrast_reads_the_independents_of_all_budgets_by_seed(planted):
    rows = table(add_shorter_independents(fill(planted)))
    row = look(rows, contrast="accuracy_matched")
    clean = {(r.arm, r.seed): r.value for r in planted.results if r.probe == "clean"}
    probe = {(r.arm, r.seed): r.value for r in planted.results if r.probe == "scramble"}
    arms = ("independent", "independent_40", "independent_60", "independent_80")
    pool = {seed: [Accuracies(clean[arm, seed], probe[arm, seed]) for arm in arms] for seed in SEEDS}
    expected = accuracy_matched([Accuracies(clean["kd", seed], probe["kd", seed]) for seed in SEEDS], pool)
    assert (row.difference, row.low, row.high, row.p_raw) == pytest.approx(
        (expected.difference.value, expected.difference.low, expected.difference.high, expected.p)
    )
    assert (row.p_source, row.n_runs, row.verdict) == (expected.source, 5, "inherited")
    assert row.teacher_gap == look(rows, contrast="independent", probe="scramble").teacher_gap


def test_the_clean_accuracy_beside_a_probe_that_drops_images_is_over_those_it_kept(planted):
    add_shorter_independents(fill(planted))
    on_all = look(table(planted), contrast="accuracy_matched").difference
    planted.figures([f"kd-cnn-{s}" for s in SEEDS], [0.70, 0.71, 0.69, 0.70, 0.72], metric="clean_accuracy")
    assert look(table(planted), contrast="accuracy_matched").difference > on_all + 0.01  # less is foretold at a lower clean accuracy


def test_without_shorter_independents_nothing_is_matched_in_accuracy(planted):
    assert "accuracy_matched" not in {row.contrast for row in table(fill(planted))}


# Matched teachers.


def test_teachers_more_than_three_points_apart_are_not_compared_and_the_gap_is_printed(planted):
    rows = table(fill(planted, apart=0.031))
    for against in ("control_teacher", "control_teacher_adjusted"):
        row = look(rows, contrast=against)
        assert (row.verdict, row.difference, row.p_raw) == ("not_measurable", None, None)
        assert row.reason.startswith("teachers and control teachers are 3.1 points apart in validation accuracy, more than 3")
        assert row.teachers_apart == pytest.approx(0.031)


def test_teachers_three_points_apart_either_way_are_compared(planted):
    row = look(table(fill(planted, apart=-0.03)), contrast="control_teacher")
    assert (row.verdict, row.teachers_apart) == ("inherited", pytest.approx(-0.03))
    assert {r.teachers_apart for r in table(planted) if not r.contrast.startswith("control_teacher")} == {None}


def test_a_teacher_of_several_students_counts_once_in_how_far_teachers_are_apart(planted):
    planted.arm("independent", INDEPENDENTS)
    planted.arm("teacher", [0.8, 0.81], student="vit", validation=[0.70, 0.76])
    planted.arm("teacher", [0.6], student="resnet", validation=[0.72])
    planted.arm("kd+matched_teacher", MATCHED, teacher="vit", taught_by=["teacher-vit-0", *["teacher-vit-1"] * 4])
    planted.arm("kd+control_teacher", WITH_CONTROL, teacher="resnet", taught_by=["teacher-resnet-0"] * 5)
    rows = table(planted)
    assert look(rows, contrast="control_teacher").teachers_apart == pytest.approx(0.73 - 0.72)
    assert look(rows, contrast="control_teacher").n_teachers == 1  # what one checkpoint taught is on one side, whatever is on the other
    assert "as by one checkpoint" in look(rows, contrast="control_teacher_adjusted").reason


def test_a_teacher_of_unknown_accuracy_is_not_taken_for_matched(planted):
    fill(planted)
    planted.runs = [run for run in planted.runs if run.record.run != "teacher-resnet-3"]
    row = look(table(planted), contrast="control_teacher")
    assert (row.verdict, row.teachers_apart) == ("not_measurable", None)
    assert "the validation accuracy of teacher run teacher-resnet-3 is not known" in row.reason


def test_the_adjusted_contrast_is_the_groups_coefficient_in_ordinary_least_squares(planted):
    row = look(table(fill(planted, apart=0.02)), contrast="control_teacher_adjusted")
    covariate = np.array([0.72, 0.73, 0.71, 0.74, 0.72, 0.70, 0.71, 0.69, 0.72, 0.70])
    fit = sm.OLS([*MATCHED, *WITH_CONTROL], np.column_stack([np.ones(10), np.repeat([1, 0], 5), covariate])).fit()
    low, high = fit.conf_int()[1]
    assert (row.difference, row.low, row.high, row.p_raw) == pytest.approx((fit.params[1], low, high, fit.pvalues[1]), abs=1e-9)
    assert row.teachers_apart == pytest.approx(0.02)


def test_whether_the_method_acted_is_asked_of_the_students_that_are_compared(planted):
    fill(planted)
    # Students are no closer to their teachers than independents are; those of the earlier weights are closer to these.
    fidelity = {"kd-cnn": (0.5, "teacher-vit"), "kd+matched_teacher-cnn": (0.8, "earlier_teacher-vit")}
    for run, (agreement, teacher) in fidelity.items():
        for s in SEEDS:
            where = dict(probe="clean", level="", teacher_run=f"{teacher}-{s}")
            for metric, sign in (("fidelity_agreement", 1), ("fidelity_kl", -1)):
                planted.figures([f"{run}-{s}"], [sign * (agreement + 0.01 * s)], metric=metric, **where)
                planted.figures([f"independent-cnn-{s}"], [sign * (0.5 + 0.01 * s)], metric=metric, **where)
    rows = {row.contrast: row for row in table(planted) if row.probe == "scramble"}
    assert {row.verdict for against, row in rows.items() if not against.startswith("control_teacher")} == {"method_did_not_act"}
    assert (rows["control_teacher"].verdict, rows["control_teacher"].fidelity) == ("inherited", pytest.approx(0.3))


# Sides.


def test_siding_is_students_t_over_the_seeds_excesses_and_its_gap_is_what_is_left_to_one(planted):
    rows = [row for row in table(add_siding(fill(planted))) if row.contrast == "second_independent"]
    assert [row.metric for row in rows] == ["side_with_teacher", "side_with_teacher_wrong"]
    expected = ttest_1samp([0.10, 0.12, 0.08, 0.11, 0.09], 0)
    interval, half = expected.confidence_interval(), t.ppf(0.975, 4) * np.std([0.55, 0.56, 0.54, 0.57, 0.53], ddof=1) / 5**0.5
    for row in rows:
        found = (row.difference, row.low, row.high, row.p_raw)
        assert found == pytest.approx((0.10, interval.low, interval.high, expected.pvalue), abs=1e-9)
        assert (row.teacher_gap, row.gap_low, row.gap_high) == pytest.approx((0.45, 0.45 - half, 0.45 + half))
        assert (row.verdict, row.n_runs, row.p_source) == ("inherited", 5, "Student's t over the excesses of 5 runs")


def test_a_declared_contrast_with_second_independents_is_the_rate_on_the_probe(planted):
    row = look(table(add_siding(fill(planted)), primary=[Contrast(0, "kd", "scramble", "second_independent")]), role="primary")
    assert (row.metric, row.contrast, row.level_or_auc) == ("side_with_teacher", "second_independent", "auc")


def test_a_run_seed_without_its_second_independent_is_left_out(planted):
    add_siding(fill(planted))
    planted.runs = [run for run in planted.runs if run.record.run != "second_independent-cnn-4"]
    alone = {"value": None, "low": None, "high": None, "status": "not_measurable", "reason": "there is no second independent student"}
    planted.results = [
        row.model_copy(update=alone) if row.run == "kd-cnn-4" and row.metric.startswith("side_with_teacher") else row
        for row in planted.results
    ]
    row = look(table(planted), metric="side_with_teacher")
    assert (row.difference, row.n_runs) == (pytest.approx(0.1025), 4)
    assert row.p_source == "Student's t over the excesses of 4 runs"


def test_one_run_sides_over_images(planted):
    row = look(table(add_siding(fill(planted), excess=(0.1,), second=(0.55,))), metric="side_with_teacher")
    assert (row.low, row.high, row.p_raw, row.p_source) == (pytest.approx(0.09), pytest.approx(0.11), None, OF_IMAGES)
    assert (row.gap_low, row.gap_high) == (pytest.approx(0.44), pytest.approx(0.46))
    assert (row.verdict, row.reason.startswith("one run, no claim")) == ("unresolved", True)


# One run in an arm.


@pytest.mark.parametrize(("student", "low", "high"), [(0.1000, -0.0046, 0.0120), (0.0997, -0.0048, 0.0116)])
def test_two_single_networks_differ_by_an_interval_over_images_and_make_no_claim(planted, student, low, high):
    n = 9984  # images of the seed project's own results; its student of CRD, and that of SSKD
    for arm, share, network in (("teacher", 0.1064, "vit"), ("independent", 0.0963, "cnn"), ("kd", student, "cnn")):
        by = {"teacher": "vit", "taught_by": ["teacher-vit-0"]} if arm == "kd" else {}
        planted.arm(arm, [share], student=network, **by)
        ends = wilson(share * n, n)
        planted.results[-1] = planted.results[-1].model_copy(update={"low": ends.low, "high": ends.high})
    row = look(table(planted), contrast="independent")
    assert (row.low, row.high) == pytest.approx((low, high), abs=1e-4)
    assert (row.p_raw, row.p_bh, row.minimum_detectable, row.runs_needed, row.family_size) == (None, None, None, None, 0)
    assert (row.p_source, row.verdict) == ("images of single networks: one run in an arm, no claim about the method", "unresolved")
    assert row.reason.startswith(f"one run, no claim: a difference of {100 * (student - 0.0963):+.1f} points (")


@pytest.mark.parametrize("single", ["kd", "independent"])
def test_one_run_beside_several_is_of_images_whichever_side_it_is_on(planted, single):
    several = "independent" if single == "kd" else "kd"
    planted.arm("teacher", TEACHERS, student="vit")
    for arm, values in ((single, [0.6]), (several, [0.4, 0.5, 0.6, 0.5])):
        by = {"teacher": "vit", "taught_by": [f"teacher-vit-{s}" for s in range(len(values))]} if arm == "kd" else {}
        planted.arm(arm, values, half=0.02, **by)
    row = look(table(planted), contrast="independent")
    half = (0.02**2 + 0.02**2) ** 0.5  # one network, and four that were shown the same images: no better known than one of them
    sign = 1 if single == "kd" else -1
    assert (row.difference, row.low, row.high) == pytest.approx((sign * 0.1, sign * 0.1 - half, sign * 0.1 + half))
    assert (row.n_runs, row.p_raw, row.p_source, row.verdict) == (1, None, OF_IMAGES, "unresolved")


# Corrections.


def test_holm_and_benjamini_hochberg_each_correct_their_own_rows(planted):
    fill(planted, **{"kd+shuffled_teacher": [0.60, 0.59, 0.62, 0.60, 0.58]})
    everyone = [run.record.run for run in planted.runs if run.record.run[-1] in "01234"]
    generator = np.random.default_rng(0)
    for probe in ("noise", "edges"):
        planted.figures(everyone, generator.normal(0.5, 0.02, len(everyone)), probe=probe)
    declared = [Contrast(0, "kd", "scramble"), Contrast(0, "kd", "scramble", "twin"), Contrast(0, "kd", "never", "twin")]
    rows = table(planted, primary=declared)
    primary, secondary = ([row for row in rows if row.role == role] for role in ("primary", "secondary"))
    assert [(row.contrast, row.probe) for row in primary] == [("independent", "scramble"), ("twin", "scramble"), ("twin", "never")]
    assert {row.family_size for row in primary} == {3}
    assert {row.p_bh for row in primary} == {row.p_holm for row in secondary} == {None}
    with_p = [row for row in secondary if row.p_raw is not None]
    assert len(with_p) == 5 * 3 - 2  # five contrasts of three probes, two of them declared
    assert {row.family_size for row in with_p} == {13}
    assert [row.p_bh for row in with_p] == pytest.approx(list(false_discovery_control([row.p_raw for row in with_p])))
    smaller, larger = sorted(row.p_raw for row in primary[:2])
    assert sorted(row.p_holm for row in primary[:2]) == pytest.approx([3 * smaller, max(3 * smaller, 2 * larger)])


def test_a_secondary_contrast_off_zero_must_hold_among_all_the_others(planted):
    fill(planted, without=("kd+twin", "kd+shuffled_teacher", "kd+matched_teacher", "kd+control_teacher"))
    planted.results = [row for row in planted.results if row.arm != "kd"]
    students = [f"kd-cnn-{s}" for s in SEEDS]
    planted.figures(students, [0.430, 0.444, 0.418, 0.412, 0.433])
    alone = look(table(planted), contrast="independent")
    assert alone.low > 0
    for place in range(12):
        for arm in ("independent", "kd"):
            planted.figures([f"{arm}-cnn-{s}" for s in SEEDS], [0.5, 0.52, 0.48, 0.51, 0.49], probe=f"quiet {place}")
        planted.figures([f"teacher-vit-{s}" for s in SEEDS], TEACHERS, probe=f"quiet {place}")
    among = look(table(planted), probe="scramble")
    assert (alone.verdict, among.verdict) == ("inherited", "unresolved")
    assert (among.p_raw, among.p_bh) == (alone.p_raw, pytest.approx(min(1, 13 * alone.p_raw)))
    assert "does not hold after Benjamini-Hochberg over 13 contrasts" in among.reason


# Limits.


def test_a_method_that_changes_its_students_is_claimed_against_its_controls_only(planted):
    changed = replace(PAIR, changed=frozenset({"kd"}))
    rows = table(add_siding(add_shorter_independents(fill(planted))), changed)
    verdicts = {row.contrast: row.verdict for row in rows if row.probe == "scramble" and row.metric in ("accuracy", "side_with_teacher")}
    assert verdicts == {
        "independent": "unresolved", "accuracy_matched": "unresolved", "second_independent": "unresolved",
        "twin": "inherited", "shuffled_teacher": "inherited", "control_teacher": "inherited", "control_teacher_adjusted": "inherited",
    }  # fmt: skip
    reason = look(rows, contrast="independent", probe="scramble").reason
    assert reason.endswith("a token, head or view that the method adds could do this too; it is to be read against its twin")


def test_where_the_twin_is_missing_the_reader_is_told(planted):
    rows = table(fill(planted, without=("kd+twin",)), replace(PAIR, changed=frozenset({"kd"})))
    assert look(rows, contrast="independent").reason.endswith("read against its twin, an arm that this study does not have")


def test_without_a_possible_control_teacher_the_most_is_that_it_differs_from_its_twin(planted):
    why = "it gives a CNN the attention of a ViT"
    rows = table(add_siding(add_shorter_independents(fill(planted))), replace(PAIR, no_control={"kd": why}))
    assert "inherited" not in {row.verdict for row in rows}
    twin = look(rows, contrast="twin", probe="scramble")
    assert twin.verdict == "unresolved"
    assert "differs from its twin by +10.4 points (" in twin.reason
    assert twin.reason.endswith(f"no control teacher can exist for it ({why}): what moved cannot be ascribed to the teacher's architecture")


def test_a_student_that_moved_away_may_be_said_to_have_without_a_control_teacher(planted):
    rows = table(fill(planted, kd=[0.30, 0.31, 0.29, 0.32, 0.30]), replace(PAIR, no_control={"kd": "why"}))
    assert look(rows, contrast="independent").verdict == "moved_away"


def test_only_the_control_teacher_tells_the_teachers_architecture_from_teaching(planted):
    for row in table(add_siding(fill(planted))):
        assert row.verdict == "inherited"
        assert ("does not tell the teacher's architecture" in row.reason) == (not row.contrast.startswith("control_teacher"))


# All of it.


def test_every_verdict_can_be_reached_and_nothing_is_nan(planted):
    fill(planted, **{"kd+twin": [0.45, 0.65, 0.42, 0.62, 0.55], "kd+shuffled_teacher": [0.70, 0.72, 0.69, 0.71, 0.73]})
    add_siding(add_shorter_independents(planted))
    runs = {arm: [f"{arm}-cnn-{s}" for s in SEEDS] for arm in ("independent", "kd", "kd+twin", "kd+control_teacher")}
    runs |= {"teacher": [f"teacher-vit-{s}" for s in SEEDS], "rival": [f"teacher-resnet-{s}" for s in SEEDS]}
    for who, value in {"teacher": 0.401, "independent": 0.4, "kd": 0.45}.items():  # no gap
        planted.figures(runs[who], [value + 0.001 * s for s in SEEDS], probe="no gap")
    for who, value in {"teacher": 0.8, "independent": 0.4, "kd": 0.401}.items():  # a gap, and no difference
        planted.figures(runs[who], [value + 0.002 * s for s in SEEDS], probe="same")
    rows = table(planted, primary=[Contrast(0, "kd", "scramble", "control_teacher"), Contrast(0, "kd", "never seen")])
    students, others = runs["kd"], runs["independent"]
    for run, teacher in [*zip(students, runs["teacher"], strict=True), *zip(others, runs["teacher"], strict=True)]:
        for metric in ("fidelity_agreement", "fidelity_kl"):
            planted.figures([run], [0.5 + 0.01 * int(run[-1])], probe="clean", level="", metric=metric, teacher_run=teacher)
    rows += table(planted)
    assert {row.verdict for row in rows} == set(get_args(Verdict))
    assert {row.contrast for row in rows} == set(get_args(Against))
    for row in rows:
        assert row.reason
        assert np.isfinite([value for value in row.model_dump().values() if isinstance(value, float)]).all()
        assert (row.low is None) == (row.high is None) == (row.p_source == "")
        assert (row.p_raw is None) == (row.p_holm is None and row.p_bh is None)


def follower(made, teacher, own, share):
    """A student that answers like its teacher on a share of the images, else like an independent of its own."""
    follows = np.arange(made.n_images) % 100 < 100 * share

    def observations(seed):
        taught, alone = teacher(seed), own(seed)
        return {key: made.seen(np.where(follows, taught[key].decisions, alone[key].decisions)) for key in alone}

    return observations


def every_arm(made):
    """A study with every arm, its networks shown the clean images and one probe at one level."""
    network = made.one_level
    teacher, rival = network(0.9, 0.8, "teacher"), network(0.9, 0.5, "rival")
    students = {
        "kd": ("vit", teacher, 0.75), "kd+twin": (None, teacher, 0.0), "kd+shuffled_teacher": ("vit", teacher, 0.2),
        "kd+matched_teacher": ("vit", teacher, 0.7), "kd+control_teacher": ("resnet", rival, 0.7),
    }  # fmt: skip
    runs, pairs = made.study(5, student=lambda seed: {}, independent=network(0.9, 0.4, "independent"), teacher=teacher)
    runs = [run for run in runs if run.record.arm != "kd"]
    runs += [ObservedRun(made.record("teacher", s, student="resnet"), rival(s)) for s in SEEDS]
    runs += [ObservedRun(made.record("second_independent", s), network(0.9, 0.4, "second")(s)) for s in SEEDS]
    for place, arm in enumerate(("independent_40", "independent_60", "independent_80")):
        shorter = network(0.70 + 0.07 * place, 0.25 + 0.05 * place, arm)
        runs += [ObservedRun(made.record(arm, s), shorter(s)) for s in SEEDS]
    for arm, (by, of, share) in students.items():
        taught = follower(made, of, network(0.9, 0.4, arm), share)
        for s in SEEDS:
            runs.append(ObservedRun(made.record(arm, s, teacher=by, teacher_run=by and f"teacher-{by}-{s}"), taught(s)))
    known = EstimateModel(value=0.9, unit="share")
    runs = [replace(run, record=run.record.model_copy(update={"estimates": {"validation_accuracy": known}})) for run in runs]
    return runs, [replace(pairs[0], control_teacher="resnet")]


def test_answers_of_every_arm_give_every_contrast(made):
    runs, pairs = every_arm(made)
    rows = inheritance_table(results_table(runs, pairs), runs, pairs, [])
    on_probe = {row.contrast: row for row in rows if row.probe == "scramble" and row.metric in ("accuracy", "side_with_teacher")}
    assert set(on_probe) == set(get_args(Against))
    for against, gained in {"independent": 0.30, "twin": 0.30, "shuffled_teacher": 0.22, "control_teacher": 0.21}.items():
        assert (on_probe[against].difference, on_probe[against].verdict) == (pytest.approx(gained, abs=0.02), "inherited")
    assert on_probe["second_independent"].difference > 0.2
    assert "as by one checkpoint" in on_probe["control_teacher_adjusted"].reason  # all validation accuracies are 0.9 here


def test_a_control_run_at_chance_makes_its_own_contrast_unreadable_and_no_other(planted, made):
    fill(planted)
    at_chance = {("clean", "", 0): made.seen(np.zeros(1000, dtype=int))}
    planted.runs = [replace(run, observations=at_chance) if run.record.run == "kd+twin-cnn-2" else run for run in planted.runs]
    rows = table(planted)
    assert look(rows, contrast="twin").verdict == "not_measurable"
    assert look(rows, contrast="twin").reason.startswith("kd+twin: cnn, seed 2: clean accuracy 10.0 %")
    assert (look(rows, contrast="twin").difference, look(rows, contrast="twin").teacher_gap) == (None, None)
    assert {row.verdict for row in rows if row.contrast != "twin"} <= {"inherited", "unresolved"}
