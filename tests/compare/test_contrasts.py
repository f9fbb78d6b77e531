"""The inheritance table on planted studies, and the parts of its evidence by hand."""

from typing import get_args

import numpy as np
import pytest
from scipy.stats import t, ttest_ind
from statsmodels.stats.multitest import multipletests

from crossdistill.compare import Contrast, ObservedRun, Pair, inheritance_table, results_table
from crossdistill.compare.evidence import action, arm_comparison, side_gap, teacher_gap
from crossdistill.core.records import ResultRow, Verdict
from crossdistill.metrics._answers import CHANCE, COUNT, NOT_TRUSTED

PRIMARY = [Contrast(0, "kd", "scramble")]
CLAIMS = {"inherited", "moved_away", "equivalent"}


def table(runs, pairs, primary=PRIMARY):
    return inheritance_table(results_table(runs, pairs), runs, pairs, primary)


def look(rows, **wanted):
    found = [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]
    assert len(found) == 1, found
    return found[0]


def declared(rows):
    return look(rows, role="primary")


@pytest.fixture
def strong(made):
    """Students that come far closer to a teacher which is far better on the probe."""

    def build(n_runs, **more):
        teacher, independent = made.network(0.9, 0.8, "teacher"), made.network(0.9, 0.4, "independent")

        last_teacher = more.get("n_teachers", n_runs) - 1
        follows = np.arange(1000) % 4 > 0  # the images on which students answer like their teacher; else like an independent

        def student(seed):
            own, taught = made.network(0.9, 0.4, "own")(seed), teacher(min(seed, last_teacher))
            return {key: made.seen(np.where(follows, taught[key].decisions, own[key].decisions)) for key in own}

        return made.study(n_runs, student=student, independent=independent, teacher=teacher, **more)

    return build


def test_a_planted_transfer_is_found_with_five_runs(strong):
    row = declared(table(*strong(5)))
    assert row.verdict == "inherited"
    assert row.difference == pytest.approx(0.3, abs=0.02)  # three quarters of a gap of 0.4, give or take the images' noise
    assert row.teacher_gap == pytest.approx(0.4, abs=0.02)
    assert (row.n_runs, row.n_teachers, row.family_size, row.contrast) == (5, 5, 1, "independent")
    assert row.fidelity > 0.05
    assert row.p_source == "Welch t on run means, 5 v 5 runs"


@pytest.mark.parametrize("n_runs", [1, 2, 3, 4])
def test_fewer_than_five_runs_claim_nothing_however_large_the_effect(strong, n_runs):
    rows = table(*strong(n_runs))
    assert rows
    assert not {row.verdict for row in rows} & CLAIMS


def test_two_runs_give_the_difference_its_interval_and_the_runs_needed(strong):
    row = declared(table(*strong(2)))
    assert row.low < row.difference < row.high
    assert (row.verdict, row.n_runs) == ("unresolved", 2)
    assert "2 runs an arm: the difference of +" in row.reason


def test_one_run_gives_a_difference_over_images_and_no_claim(strong):
    row = declared(table(*strong(1)))
    assert (row.verdict, row.p_raw, row.p_holm, row.minimum_detectable) == ("unresolved", None, None, None)
    assert row.difference == pytest.approx(0.3, abs=0.03)
    assert row.high - row.low == pytest.approx(2 * 1.96 * (0.25 * (1 / 1000 + 1 / 1000)) ** 0.5, rel=0.5)  # levels make it narrower
    assert row.reason.startswith("one run, no claim")
    assert row.p_source == "images of single networks: one run in an arm, no claim about the method"


def test_the_difference_is_welchs_over_the_runs_of_the_results_table(strong):
    runs, pairs = strong(3)
    results = results_table(runs, pairs)

    def figures(arm):
        return [r.value for r in results if (r.arm, r.probe, r.level, r.metric) == (arm, "scramble", "grid=3", "retention")]

    expected = ttest_ind(figures("kd"), figures("independent"), equal_var=False)
    row = look(inheritance_table(results, runs, pairs, []), level_or_auc="grid=3", metric="retention")
    interval = expected.confidence_interval()
    assert (row.p_raw, row.low, row.high) == pytest.approx((expected.pvalue, interval.low, interval.high), abs=1e-9)


def test_every_figure_but_fidelity_and_the_untrusted_ratio_is_contrasted(strong):
    rows = table(*strong(2))
    above_chance = {"conditional_retention_share", "conditional_retention_above_chance"}  # and not the chance level itself
    # Without a temperature js_invariance is not measurable here, and says so.
    of_all = {"agreement_kappa", "js_invariance"}
    assert {row.metric for row in rows} == {"accuracy", "retention", "confidence", *above_chance, *of_all}
    assert {(row.probe, row.level_or_auc) for row in rows if row.metric == "accuracy"} == {
        ("clean", ""),
        *(("scramble", level) for level in ("grid=2", "grid=3", "grid=4", "auc")),
    }


def test_attention_distances_figures_in_nats_and_logits_and_those_beside_a_teacher_are_not_contrasted(planted):
    planted.arm("independent", [0.4, 0.5])
    planted.arm("teacher", [0.7, 0.8], student="vit")
    students = planted.arm("kd", [0.5, 0.6], teacher="vit", taught_by=["teacher-vit-0", "teacher-vit-1"])
    everyone = [run.record.run for run in planted.runs]
    kept = {"effective_receptive_field_50": "share of the side", "calibration_ece": "probability", "agreement_kappa": "kappa"}
    left = {"mean_attention_distance_layer1": "share of uniform", "calibration_nll": "nats", "accuracy_residual_logit": "logit"}
    left |= {
        "what_somebody_adds_tomorrow": "px",
        "conditional_retention_chance": CHANCE,
        "cue_counts_shape": COUNT,
        "seed_ratio": NOT_TRUSTED,
    }
    left |= {"accuracy_residual_share": "share", "accuracy_residual_pool_sd": "logit", "clean_accuracy": "share"}
    for metric, unit in (kept | left).items():
        planted.figures(everyone, np.linspace(0.2, 0.7, 6), metric=metric, unit=unit)
    for metric in ("error_consistency", "side_with_teacher_rate"):  # a student's, and one that an independent has beside a teacher
        planted.figures(students, [0.5, 0.6], metric=metric)
        planted.figures(["independent-cnn-0"], [0.5], metric=metric, teacher_run="teacher-vit-0")
    rows = inheritance_table(planted.results, planted.runs, [Pair(0, "vit", "cnn", ("kd",))], [])
    assert {row.metric for row in rows} == {"accuracy", *kept}


def test_shares_of_cues_are_contrasted_and_counts_of_images_are_not(made):
    factors = {"shape": made.labels, "texture": (made.labels + 1) % 10}

    def reads_shape(seed):
        return {("clean", "", 0): made.seen(made.labels), ("conflict", "", 0): made.seen(made.labels, factors=factors, split="conflict")}

    metrics = {row.metric for row in table(*made.study(2, student=reads_shape, independent=reads_shape, teacher=reads_shape), primary=[])}
    assert {"shape_bias", "cue_counts_either"} <= metrics
    assert not {"cue_counts_shape", "cue_counts_texture"} & metrics


def test_students_that_are_their_teacher_inherit_everything(made):
    teacher = made.network(0.9, 0.8, "teacher")
    rows = table(*made.study(5, student=teacher, independent=made.network(0.9, 0.4, "independent"), teacher=teacher))
    row = declared(rows)
    assert (row.verdict, row.difference) == ("inherited", pytest.approx(row.teacher_gap))


def test_students_that_are_other_independents_inherit_nothing(made):
    verdicts = []
    for study in range(12):
        student, independent = made.one_level(0.9, 0.4, f"student {study}"), made.one_level(0.9, 0.4, f"i{study * 7}")
        runs, pairs = made.study(5, student=student, independent=independent, teacher=made.one_level(0.9, 0.8, f"t{study * 11}"))
        verdicts.append(declared(table(runs, pairs)).verdict)
    # Fidelity is tested twice at one-sided 2.5 %, so that one method in twenty may be thought to have acted.
    assert verdicts.count("method_did_not_act") >= 10
    assert "inherited" not in verdicts


def test_a_constant_predictor_is_not_measurable_everywhere(made):
    def constant(seed):
        zero = np.zeros(made.n_images, dtype=int)
        return {key: made.seen(zero) for key in made.one_level(0.9, 0.4, "any")(seed)}

    arms = {arm: made.one_level(0.9, 0.5, arm) for arm in ("student", "independent", "teacher")}
    for arm in arms:
        rows = table(*made.study(5, **{**arms, arm: constant}))
        assert {row.verdict for row in rows} == {"not_measurable"}
        assert all(row.difference is None and row.p_raw is None and row.teacher_gap is None for row in rows)
        assert "clean accuracy 10.0 % on 1,000 images is not clearly above" in rows[0].reason


def test_one_failed_run_makes_its_arm_unreadable_and_is_named(made, strong):
    runs, pairs = strong(5)
    broken = ObservedRun(runs[-1].record, {key: made.seen(np.zeros(1000, dtype=int)) for key in runs[-1].observations})
    row = declared(table([*runs[:-1], broken], pairs))
    assert row.verdict == "not_measurable"
    assert row.reason.startswith("kd: cnn, seed 4: clean accuracy 10.0 %")


def test_without_a_gap_there_is_nothing_to_inherit(made, strong):
    runs, pairs = strong(5)
    same_as_independent = {f"teacher-vit-{s}": runs[5 + s].observations for s in range(5)}
    flat = [ObservedRun(run.record, same_as_independent.get(run.record.run, run.observations)) for run in runs]
    clean = look(table(runs, pairs), probe="clean", metric="accuracy")
    assert clean.verdict == "nothing_to_inherit"  # 0.9 and 0.9 on clean images
    assert declared(table(flat, pairs)).verdict in ("nothing_to_inherit", "method_did_not_act")


def test_one_teacher_run_gives_a_gap_with_an_interval(strong):
    row = declared(table(*strong(5, n_teachers=1)))
    assert (row.n_teachers, row.verdict) == (1, "inherited")
    assert row.reason.startswith("5 runs an arm, from one teacher checkpoint: ")
    assert row.gap_low < row.teacher_gap < row.gap_high


def test_holm_runs_over_the_declared_contrasts_only(made, strong):
    runs, pairs = strong(3)
    more = [ObservedRun(r.record, {**r.observations, ("noise", "a", 0): r.observations["scramble", "grid=3", 0]}) for r in runs]
    rows = table(more, pairs, [*PRIMARY, Contrast(0, "kd", "noise")])
    primary = [row for row in rows if row.role == "primary"]
    assert [(row.probe, row.level_or_auc, row.family_size) for row in primary] == [("scramble", "auc", 2), ("noise", "a", 2)]
    expected = multipletests([row.p_raw for row in primary], method="holm")[1]
    assert [row.p_holm for row in primary] == pytest.approx(list(expected))
    assert {row.p_holm for row in rows if row.role == "secondary"} == {None}


def test_a_declared_contrast_that_was_not_measured_still_counts_in_the_family(strong):
    runs, pairs = strong(3)
    rows = [row for row in table(runs, pairs, [*PRIMARY, Contrast(0, "kd", "never_observed")]) if row.role == "primary"]
    measured, missing = look(rows, probe="scramble"), look(rows, probe="never_observed")
    assert (missing.verdict, missing.reason, missing.p_holm) == ("not_measurable", "no student run has this figure", None)
    assert measured.p_holm == pytest.approx(min(1, 2 * measured.p_raw))


def test_a_contrast_that_cannot_be_is_refused(strong):
    runs, pairs = strong(2)
    with pytest.raises(ValueError, match="'crd' in pair 0 has no such pair and method"):
        table(runs, pairs, [Contrast(0, "crd", "scramble")])


def test_a_method_that_was_not_trained_yet_is_not_measurable(strong):
    runs, _ = strong(2)
    rows = table(runs, [Pair(0, "vit", "cnn", ("kd", "crd"))])
    assert {row.verdict for row in rows if row.method == "crd"} == {"not_measurable"}


def test_no_runs_make_an_empty_table_but_for_what_was_declared():
    rows = table([], [Pair(0, "vit", "cnn", ("kd",))])
    assert [(row.role, row.verdict) for row in rows] == [("primary", "not_measurable")]
    assert table([], [], []) == []


def test_nothing_in_the_table_is_nan(made, strong):
    for runs, pairs in (strong(1), strong(2), strong(5, n_teachers=1)):
        for row in table(runs, pairs):
            numbers = [value for value in row.model_dump().values() if isinstance(value, float)]
            assert np.isfinite(numbers).all()
            assert row.verdict in get_args(Verdict)
            assert row.reason


# The evidence by hand.


def rows_of(values, half=0.01, metric="accuracy"):
    fixed = dict(arm="a", method=None, teacher=None, student="cnn", seed=0, probe="p", level="", metric=metric, n=1, unit="share")
    return [
        ResultRow(run=f"r{i}", value=value, low=value - half, high=value + half, status="ok", reason=None, **fixed)
        for i, value in enumerate(values)
    ]


def test_the_gap_of_two_teacher_runs_is_welchs():
    expected = ttest_ind([0.8, 0.84, 0.79], [0.5, 0.55], equal_var=False).confidence_interval()
    gap = teacher_gap(rows_of([0.8, 0.84, 0.79]), rows_of([0.5, 0.55]))
    assert (gap.low, gap.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_gap_of_one_teacher_run_adds_its_image_interval_to_the_independents_spread():
    gap = teacher_gap(rows_of([0.8], half=0.0196), rows_of([0.5, 0.52, 0.54]))
    of_teacher, of_runs = 0.01**2, 0.02**2 / 3  # (0.0196 / 1.96)^2, and the runs' variance over 3
    freedom = (of_teacher + of_runs) ** 2 / (of_runs**2 / 2)
    half = t.ppf(0.975, freedom) * (of_teacher + of_runs) ** 0.5
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.28, 0.28 - half, 0.28 + half), abs=1e-5)


def test_the_gap_without_any_spread_rests_on_the_images():
    gap = teacher_gap(rows_of([1.0, 1.0], half=0.0196), rows_of([0.9, 0.9]))
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.1, 0.0804, 0.1196), abs=1e-4)


def test_the_gap_between_two_single_networks_rests_on_the_images_of_both():
    gap = teacher_gap(rows_of([0.8], half=0.03), rows_of([0.5], half=0.04))
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.3, 0.25, 0.35))


def test_the_gap_to_one_independent_run_adds_its_image_interval_to_the_teachers_spread():
    a, b = rows_of([0.8, 0.82, 0.84]), rows_of([0.5], half=0.0196)
    gap, mirrored = teacher_gap(a, b), teacher_gap(b, a)
    assert (gap.value, gap.low, gap.high) == pytest.approx((-mirrored.value, -mirrored.high, -mirrored.low))


def test_a_gap_to_a_single_network_without_an_interval_is_not_measurable():
    bare = rows_of([0.5])[0].model_copy(update=dict(low=None, high=None))
    assert teacher_gap(rows_of([0.8]), [bare]).status == "not_measurable"


def test_a_single_network_without_an_interval_leaves_a_bare_difference():
    bare = rows_of([0.5])[0].model_copy(update=dict(low=None, high=None))
    compared = arm_comparison([bare], rows_of([0.4, 0.5]))
    assert (compared.difference.status, compared.difference.value) == ("not_measurable", pytest.approx(0.05))
    assert "the bare difference of +5.0 points is no claim" in compared.difference.reason


def test_of_siding_what_is_left_to_one_is_the_gap_with_students_t_over_the_runs():
    rates = [0.5, 0.56, 0.53]
    gap, half = side_gap(rows_of(rates)), t.ppf(0.975, 2) * np.std(rates, ddof=1) / 3**0.5
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.47, 0.47 - half, 0.47 + half))
    alone = side_gap(rows_of([0.5], half=0.02))
    assert (alone.value, alone.low, alone.high) == pytest.approx((0.5, 0.48, 0.52))
    assert side_gap([]).status == "not_measurable"


def test_a_run_without_the_figure_makes_the_arm_unreadable_and_is_named():
    lacking = rows_of([0.5])[0].model_copy(update=dict(value=None, status="not_measurable", reason="no conflict"))
    assert arm_comparison([*rows_of([0.5, 0.6]), lacking], rows_of([0.4, 0.5])).difference.reason == "student run r0: no conflict"


def test_arms_without_spread_keep_the_bare_difference_as_no_claim():
    compared = arm_comparison(rows_of([1.0, 1.0]), rows_of([0.9, 0.9]))
    assert (compared.difference.status, compared.difference.value) == ("not_measurable", pytest.approx(0.1))
    assert "the bare difference of +10.0 points is no claim" in compared.difference.reason


def acted(agreement, kl):
    return action(tuple(map(rows_of, agreement)), tuple(map(rows_of, kl))).inaction is None


def test_with_few_runs_the_means_say_whether_a_method_acted():
    assert acted(([0.7, 0.8], [0.6, 0.7]), ([0.5, 0.5], [0.4, 0.4]))  # agreement better
    assert acted(([0.6, 0.7], [0.7, 0.8]), ([0.3, 0.4], [0.5, 0.4]))  # divergence better
    assert not acted(([0.6, 0.7], [0.6, 0.7]), ([0.5, 0.5], [0.5, 0.5]))  # neither


def test_with_five_runs_welch_says_whether_a_method_acted():
    noisy, lower = [0.60, 0.65, 0.70, 0.75, 0.80], [0.59, 0.64, 0.69, 0.74, 0.79]
    flat = ([0.5] * 5, [0.5] * 5)
    assert not acted((noisy, lower), flat)  # a point better, of a spread of eight
    by_chance = action((rows_of(noisy), rows_of(lower)), (rows_of(flat[0]), rows_of(flat[1]))).inaction
    assert by_chance is not None
    assert by_chance.endswith("closer to the teacher by less than can be told from chance")
    assert acted(([0.9, 0.91, 0.92, 0.9, 0.91], lower), flat)


def test_unmeasured_fidelity_says_nothing():
    assert action(([], rows_of([0.5])), (rows_of([0.5]), rows_of([0.5]))).gained_agreement is None
