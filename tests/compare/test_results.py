"""The results table: which figures there are, from which images, under which names."""

import numpy as np
import pytest

from crossdistill.compare import ObservedRun, Pair, applied, inheritance_table, results_table
from crossdistill.core.types import UNLABELLED, Estimate

PAIRS = [Pair(0, "vit", "cnn", ("kd",))]
CLEAN = ("clean", "", 0)


def look(rows, **wanted):
    """The one row that has these fields."""
    found = [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]
    assert len(found) == 1, found
    return found[0]


def names(rows, **wanted):
    return {row.metric for row in rows if all(getattr(row, name) == value for name, value in wanted.items())}


@pytest.fixture
def probed(made):
    """An independent that is right on 600 clean images, and on 400, 300 and 200 of them at three levels."""

    def right(count):
        return made.seen(np.where(np.arange(made.n_images) < count, made.labels, (made.labels + 1) % 10))

    levels = {("noise", f"sigma={level}", 0): right(count) for level, count in (("low", 400), ("mid", 300), ("high", 200))}
    return ObservedRun(made.record("independent"), {CLEAN: right(600), **levels})


def test_accuracy_and_retention_by_hand(probed):
    rows = results_table([probed], PAIRS)
    assert look(rows, probe="clean", metric="accuracy").value == 0.6
    assert look(rows, level="sigma=mid", metric="accuracy").value == 0.3
    assert look(rows, level="sigma=mid", metric="retention").value == pytest.approx((0.3 - 0.1) / (0.6 - 0.1))
    assert look(rows, level="sigma=mid", metric="seed_ratio").value == pytest.approx(0.5)


def test_the_average_over_levels_is_taken_inside_each_image(probed):
    row = look(results_table([probed], PAIRS), level="auc", metric="accuracy")
    assert (row.value, row.n, row.reason, row.draw) == (pytest.approx(0.3), 1000, None, "mean")
    # Images right at all three levels and images right at none are clusters: wider than 3,000 answers, narrower than 1,000.
    assert 2 * 1.96 * (0.3 * 0.7 / 3000) ** 0.5 < row.high - row.low < 2 * 1.96 * (0.3 * 0.7 / 1000) ** 0.5


def test_rows_say_whose_they_are(probed):
    row = look(results_table([probed], PAIRS), probe="clean", metric="accuracy")
    assert (row.run, row.arm, row.student, row.teacher, row.teacher_run) == ("independent-cnn-0", "independent", "cnn", None, None)


def test_levels_keep_the_order_in_which_they_were_observed(probed):
    levels = dict.fromkeys(row.level for row in results_table([probed], PAIRS) if row.probe == "noise")
    assert list(levels) == ["sigma=low", "sigma=mid", "sigma=high", "auc"]


def test_a_curve_of_two_levels_is_labelled_so(probed):
    fewer = ObservedRun(probed.record, {key: of for key, of in probed.observations.items() if key[1] != "sigma=mid"})
    row = look(results_table([fewer], PAIRS), level="auc", metric="accuracy")
    assert (row.status, row.reason) == ("ok", "curve of 2 levels")


def test_one_level_makes_no_curve(probed):
    one = ObservedRun(probed.record, {key: of for key, of in probed.observations.items() if key[1] in ("", "sigma=mid")})
    assert not names(results_table([one], PAIRS), level="auc")


def test_draws_are_averaged_inside_an_image(made, probed):
    draws = {("noise", "a", 0): made.seen(made.labels), ("noise", "a", 1): made.seen((made.labels + 1) % 10)}
    rows = results_table([ObservedRun(probed.record, {CLEAN: probed.observations[CLEAN], **draws})], PAIRS)
    row = look(rows, level="a", metric="accuracy")
    assert (row.value, row.n) == (0.5, 1000)


def test_a_subset_of_images_is_paired_by_index_whatever_its_order(made, probed):
    kept = np.random.default_rng(0).permutation(made.n_images)[:300]
    clean = probed.observations[CLEAN]
    part = made.seen(clean.decisions[kept], made.labels[kept], index=kept)
    rows = results_table([ObservedRun(probed.record, {CLEAN: clean, ("noise", "none", 0): part})], PAIRS)
    row = look(rows, probe="noise", metric="retention")
    assert (row.value, row.low, row.high, row.n) == (pytest.approx(1), pytest.approx(1), pytest.approx(1), 300)


def test_images_that_one_level_rejected_are_counted_and_leave_the_curve(made, probed):
    kept = np.arange(900)
    cut = made.seen(made.labels[kept], made.labels[kept], index=kept)
    rows = results_table([ObservedRun(probed.record, {**probed.observations, ("noise", "sigma=mid", 0): cut})], PAIRS)
    assert look(rows, level="sigma=mid", metric="accuracy").n_rejected == 100
    assert look(rows, level="sigma=low", metric="accuracy").n_rejected == 0
    curve = look(rows, level="auc", metric="accuracy")
    assert (curve.n, curve.n_rejected) == (900, 100)


def test_an_extra_set_of_its_own_split_is_not_paired_with_the_clean_images(made, probed):
    conflict = made.seen(made.labels[::-1], made.labels, split="conflict")
    rows = results_table([ObservedRun(probed.record, {**probed.observations, ("conflict", "", 0): conflict})], PAIRS)
    assert "accuracy" in names(rows, probe="conflict")
    assert "retention" not in names(rows, probe="conflict") | names(rows, probe="clean")


def test_factors_bring_the_metrics_that_read_them(made, probed):
    factors = {"shape": made.labels, "texture": (made.labels + 1) % 10, "colour": (made.labels + 2) % 10}
    conflict = made.seen(made.labels, factors=factors, split="conflict")
    rows = results_table([ObservedRun(probed.record, {**probed.observations, ("conflict", "", 0): conflict})], PAIRS)
    assert look(rows, probe="conflict", metric="shape_bias").value == 1
    assert look(rows, probe="conflict", metric="cue_choice_texture").value == 0
    assert "shape_bias" not in names(rows, probe="noise")


def test_misaligned_labels_are_an_error_and_not_a_result(made, probed):
    shuffled = made.seen(made.labels, np.roll(made.labels, 1))
    with pytest.raises(ValueError, match="probe 'noise' has other labels than the clean images of the same index"):
        results_table([ObservedRun(probed.record, {**probed.observations, ("noise", "sigma=mid", 0): shuffled})], PAIRS)


def test_an_image_observed_twice_is_an_error(made, probed):
    twice = made.seen(made.labels[:3], made.labels[:3], index=[0, 1, 1])
    other = made.seen(made.labels[:2], made.labels[:2], index=[0, 1])
    with pytest.raises(ValueError, match="observed twice"):
        results_table([ObservedRun(probed.record, {("noise", "a", 0): other, ("noise", "a", 1): twice})], PAIRS)


def test_levels_with_unequal_draws_are_an_error(made, probed):
    lopsided = {**probed.observations, ("noise", "sigma=mid", 1): probed.observations["noise", "sigma=mid", 0]}
    with pytest.raises(ValueError, match="as many draws"):
        results_table([ObservedRun(probed.record, lopsided)], PAIRS)


def test_images_without_labels_have_no_accuracy_but_fidelity(made):
    blank = np.full(made.n_images, UNLABELLED)
    runs, pairs = made.study(1, **dict.fromkeys(("student", "independent", "teacher"), lambda s: {CLEAN: made.seen(made.labels, blank)}))
    found = names(results_table(runs, pairs), arm="kd")
    assert "fidelity_agreement" in found
    assert not found & {"accuracy", "retention"}


def test_students_are_compared_with_their_own_teacher_run_and_independents_with_that_of_their_seed(made):
    kind = made.network(0.8, 0.5, "any")
    runs, pairs = made.study(2, student=kind, independent=made.network(0.7, 0.5, "other"), teacher=kind)
    rows = results_table(runs, pairs)
    for seed in (0, 1):
        student = look(rows, run=f"kd-cnn-{seed}", metric="fidelity_agreement", level="auc")
        independent = look(rows, run=f"independent-cnn-{seed}", metric="fidelity_agreement", level="auc")
        assert (student.value, student.teacher_run) == (1.0, f"teacher-vit-{seed}")
        assert (independent.teacher, independent.teacher_run) == ("vit", f"teacher-vit-{seed}")
        assert 0 < independent.value < 1
    assert not names(rows, arm="teacher") & {"fidelity_agreement", "fidelity_kl"}


def test_agreement_is_counted_over_the_images_that_both_answered(made):
    runs, pairs = made.study(
        1,
        student=lambda s: {CLEAN: made.seen(made.labels[:500], made.labels[:500])},
        independent=made.network(0.7, 0.5, "i"),
        teacher=lambda s: {CLEAN: made.seen(made.labels[::-1], made.labels[::-1], index=np.arange(1000)[::-1])},
    )
    row = look(results_table(runs, pairs), run="kd-cnn-0", metric="fidelity_agreement")
    assert (row.value, row.n) == (1.0, 500)


def test_an_independent_shared_by_two_pairs_stands_beside_both_teachers(made):
    kind = made.network(0.8, 0.5, "any")
    runs, pairs = made.study(1, student=kind, independent=kind, teacher=kind)
    mixer = ObservedRun(made.record("teacher", 0, student="mixer"), kind(0))
    second = ObservedRun(made.record("kd", 7, teacher="mixer", teacher_run="teacher-mixer-0"), kind(0))
    second = ObservedRun(second.record.model_copy(update={"seed": 0}), second.observations)
    rows = results_table([*runs, mixer, second], [*pairs, Pair(1, "mixer", "cnn", ("kd",))])
    beside = {row.teacher for row in rows if row.arm == "independent" and row.metric == "fidelity_kl"}
    assert beside == {"vit", "mixer"}


def test_a_new_metric_is_applied_without_being_named_anywhere(made, probed, monkeypatch):
    def answered(decisions, *, level=0.5):
        return {"classes": Estimate(float(len(np.unique(decisions))), n=decisions.shape[-1], unit="classes")}

    known = applied._readers()
    monkeypatch.setattr(applied, "_readers", lambda: {**known, "answered": applied._reader(answered)})
    rows = results_table([probed], PAIRS)
    assert look(rows, probe="clean", metric="answered_classes").value == 10
    assert look(rows, level="auc", metric="answered_classes").n == 1000


def test_a_metric_that_returns_nan_is_an_error(probed, monkeypatch):
    monkeypatch.setattr(applied, "_readers", lambda: {"bad": applied._reader(lambda labels: Estimate(float("nan")))})
    with pytest.raises(ValueError, match="metric 'bad' returned NaN"):
        results_table([probed], PAIRS)


def test_the_table_does_not_depend_on_which_other_runs_there_are(made):
    runs, pairs = made.study(2, **{arm: made.network(0.8, 0.5, arm) for arm in ("student", "independent", "teacher")})
    alone = results_table(runs[:1], pairs)
    assert [row for row in results_table(runs, pairs) if row.run == runs[0].record.run] == alone


def test_a_probe_that_drops_images_has_the_clean_accuracy_on_the_others_and_their_chance(made):
    kept = np.flatnonzero(made.labels < 2)[:150]
    clean = np.where(np.arange(made.n_images) < 500, made.labels, (made.labels + 1) % 10)
    shown = made.seen(made.labels[kept], made.labels[kept], index=kept)
    whole = made.seen(made.labels)
    run = ObservedRun(made.record("independent"), {("clean", "", 0): made.seen(clean), ("cut", "", 0): shown, ("whole", "", 0): whole})
    rows = {(row.probe, row.metric): row for row in results_table([run], [])}
    assert rows["cut", "clean_accuracy"].value == np.mean(clean[kept] == made.labels[kept])
    assert rows["cut", "clean_accuracy"].n == 150
    assert (rows["cut", "accuracy"].chance, rows["whole", "accuracy"].chance, rows["clean", "accuracy"].chance) == (0.5, 0.1, 0.1)
    assert ("whole", "clean_accuracy") not in rows
    contrasts = inheritance_table(list(rows.values()), [run], PAIRS, [])
    assert "clean_accuracy" not in {row.metric for row in contrasts}
