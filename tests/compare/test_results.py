"""The results table: which figures there are, from which images, under which names."""

import numpy as np
import pytest
from scipy.special import softmax

from crossdistill.compare import ObservedRun, Pair, applied, inheritance_table, results_table
from crossdistill.core.records import EstimateModel
from crossdistill.core.types import UNLABELLED, Estimate
from crossdistill.metrics.accuracy_residual import accuracy_residual
from crossdistill.metrics.agreement_kappa import agreement_kappa
from crossdistill.metrics.calibration import calibration
from crossdistill.metrics.consistency_ceiling import consistency_ceiling
from crossdistill.metrics.error_consistency import error_consistency
from crossdistill.metrics.js_invariance import js_invariance
from crossdistill.metrics.same_wrong_label import same_wrong_label
from crossdistill.metrics.side_with_teacher import side_with_teacher

PAIRS = [Pair(0, "vit", "cnn", ("kd",))]
CLEAN = ("clean", "", 0)
GRID = ("scramble", "grid=3", 0)


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


def numbers(figure):
    return figure.value, figure.low, figure.high, figure.n


def changed(run, /, **fields):
    """The same answers under another record."""
    return ObservedRun(run.record.model_copy(update=fields), run.observations, run.probed, run.measured)


def fitted(run, value=2.0):
    return changed(run, estimates={"temperature": EstimateModel(value=value)})


@pytest.fixture(scope="module")
def everyone(made):
    """Two seeds of every arm that a result row may need, on clean images and one probe."""

    def of(arm, seed, accuracy, *, student="cnn", **taught):
        found = made.network(accuracy, accuracy - 0.2, f"{arm}{student}")(seed)
        shown = {place: seen for place, seen in found.items() if place in (CLEAN, GRID)}
        return fitted(ObservedRun(made.record(arm, seed, student=student, **taught), shown))

    runs = []
    for seed in (0, 1):
        of_vit, of_cnn = {"teacher": "vit", "teacher_run": f"teacher-vit-{seed}"}, {"teacher": "cnn", "teacher_run": f"teacher-cnn-{seed}"}
        runs += [of("teacher", seed, 0.9, student="vit"), of("teacher", seed, 0.85), of("independent", seed, 0.8)]
        runs += [of("second_independent", seed, 0.79), of("kd", seed, 0.78, **of_vit), of("kd+twin", seed, 0.77)]
        runs += [of("kd+control_teacher", seed, 0.76, **of_cnn)]
    runs += [of(f"independent_{share}", 0, 0.6 + share / 500) for share in (40, 60, 80)]
    runs += [changed(of("teacher", 0, 0.75, student="vit"), run="teacher-vit-0@epoch-002", arm="earlier_teacher")]
    return [*runs, of("kd+matched_teacher", 0, 0.75, teacher="vit", teacher_run="teacher-vit-0@epoch-002")]


@pytest.fixture(scope="module")
def of_everyone(everyone):
    return results_table(everyone, PAIRS)


def named(runs, name):
    (run,) = [run for run in runs if run.record.run == name]
    return run


def decisions(runs, name):
    return named(runs, name).observations[GRID].decisions


def test_invariance_compares_the_same_images_whatever_their_order(made):
    generator = np.random.default_rng(0)
    before, after = generator.normal(size=(2, made.n_images, 10)).astype(np.float32)
    kept = generator.permutation(made.n_images)[:700]
    clean, probe = made.seen(made.labels), made.seen(made.labels[kept], made.labels[kept], index=kept)
    clean, probe = (type(clean)(logits, of.labels, of.index) for logits, of in ((before, clean), (after[kept], probe)))
    run = fitted(ObservedRun(made.record("independent"), {CLEAN: clean, ("hue", "a", 0): probe}), value=0.5)
    rows = results_table([run], [])
    wanted = js_invariance(before[kept], after[kept], temperature=0.5)
    assert numbers(look(rows, metric="js_invariance")) == numbers(wanted)
    assert wanted.value != js_invariance(before[kept], after[kept]).value
    expected = agreement_kappa(before[kept].argmax(axis=1), after[kept].argmax(axis=1))
    assert numbers(look(rows, metric="agreement_kappa")) == numbers(expected)
    assert "agreement_kappa" not in names(rows, probe="clean")


def test_calibration_reads_probabilities_at_the_networks_own_temperature(probed):
    rows = results_table([fitted(probed)], PAIRS)
    for place, level in ((CLEAN, ""), (("noise", "sigma=mid", 0), "sigma=mid")):
        of = probed.observations[place]
        for figure, estimate in calibration(softmax(of.logits.astype(np.float64) / 2, axis=1), of.labels).items():
            assert look(rows, level=level, metric=f"calibration_{figure}").value == pytest.approx(estimate.value, abs=1e-12)


@pytest.mark.parametrize(
    ("estimates", "reason"),
    [
        ({}, "no temperature was fitted on held-out images"),
        ({"temperature": EstimateModel(value=None, status="not_measurable", reason="too few images")}, "too few images"),
    ],
)
def test_without_a_temperature_what_it_is_needed_for_is_refused_and_not_read_at_one(probed, estimates, reason):
    rows = results_table([changed(probed, estimates=estimates)], PAIRS)
    found = [row for row in rows if row.metric.startswith(("js_invariance", "calibration"))]
    assert {row.metric for row in found} == {"js_invariance", "calibration"}
    assert {(row.status, row.value, row.reason.split(";")[0]) for row in found if row.level != "auc"} == {("not_measurable", None, reason)}
    assert all(row.unit for row in found)
    assert look(rows, level="sigma=mid", metric="agreement_kappa").status == "ok"


def test_decisions_without_logits_have_no_temperature_to_lack(made, probed):
    decided = {
        place: type(of)(np.empty((len(of.labels), 0), np.float32), of.labels, of.index, decided=of.decisions)
        for place, of in probed.observations.items()
    }
    found = names(results_table([ObservedRun(probed.record, decided)], PAIRS))
    assert "agreement_kappa" in found
    assert not {name for name in found if name.startswith(("js_invariance", "calibration", "confidence"))}


def test_the_residual_is_read_from_the_independents_of_all_budgets_without_the_network_itself(everyone, of_everyone):
    pool = [run for run in everyone if run.record.arm.startswith(("independent", "second"))]

    def right(run, place):
        return run.observations[place].decisions == run.observations[place].labels

    for student, others in ((named(everyone, "kd-cnn-0"), pool), (pool[0], pool[1:]), (named(everyone, "teacher-cnn-0"), pool)):
        own = right(student, GRID), right(student, CLEAN)
        of_pool = [np.array([right(other, place).mean() for other in others]) for place in (GRID, CLEAN)]
        expected = accuracy_residual(*own, *of_pool)
        for figure, estimate in expected.items():
            row = look(of_everyone, run=student.record.run, probe="scramble", metric=f"accuracy_residual_{figure}")
            assert numbers(row) == numbers(estimate)
            assert row.reason == estimate.reason
    assert len(pool) == 7
    assert not names(of_everyone, student="vit") & {"accuracy_residual_share"}  # it has no independents
    assert not names(of_everyone, probe="clean") & {"accuracy_residual_share"}


def test_no_line_is_drawn_through_fewer_than_three_different_accuracies(everyone):
    pool = [run for run in everyone if run.record.arm.startswith("independent_")]
    student = named(everyone, "kd-cnn-0")
    assert "accuracy_residual_share" in names(results_table([student, *pool], []))
    assert "accuracy_residual_share" not in names(results_table([student, *pool[:2]], []))
    twice = [*pool[:2], changed(pool[1], run="independent_40-cnn-9")]
    assert "accuracy_residual_share" not in names(results_table([student, *twice], []), arm="kd")


def test_networks_that_exist_already_are_each_others_pool(everyone):
    networks = [changed(run, arm="network", student=run.record.run, teacher=None, teacher_run=None) for run in everyone[:5]]
    found = {row.run: row for row in results_table(networks, []) if row.metric == "accuracy_residual_pool_sd"}
    assert found.keys() == {run.record.run for run in networks}
    assert [found[run.record.run].n for run in networks if found[run.record.run].status == "ok"] == [4, 4, 4]  # best and worst are outside


def test_what_instruments_gave_stands_beside_the_clean_images_alone(probed):
    distances, mass = np.full((20, 2, 3), 0.5), np.tile(np.linspace(0, 1, 257) ** 2, (20, 1))
    features = {"pooled": np.zeros((20, 4))}
    measured = {"attention_distance": distances, "receptive_field": mass, "features": features, "grad_cam": np.zeros((20, 4, 4))}
    rows = results_table([ObservedRun(probed.record, probed.observations, measured=measured)], PAIRS)
    found = {row.metric: row.probe for row in rows if row.metric.startswith(("mean_attention_distance", "effective_receptive_field"))}
    assert set(found.values()) == {"clean"}
    assert look(rows, metric="mean_attention_distance_layer2").value == 0.5
    assert look(rows, metric="effective_receptive_field_side_50").value == pytest.approx(0.5**0.5, abs=1e-3)


def test_an_instrument_that_refused_a_network_leaves_its_reason(probed):
    measured = {"attention_distance": "a CNN has no patches that attend to one another"}
    rows = results_table([ObservedRun(probed.record, probed.observations, measured=measured)], PAIRS)
    row = look(rows, metric="mean_attention_distance")
    assert (row.status, row.value, row.reason, row.unit) == ("not_measurable", None, measured["attention_distance"], "share of uniform")
    assert "effective_receptive_field_side_50" not in names(rows)


def test_a_student_that_is_its_teacher_always_sides_with_it(everyone):
    teacher = named(everyone, "teacher-vit-1")
    runs = [ObservedRun(run.record, teacher.observations) if run.record.run == "kd-cnn-1" else run for run in everyone]
    rows = [row for row in results_table(runs, PAIRS) if row.run == "kd-cnn-1"]
    for metric in ("side_with_teacher_rate", "side_with_teacher_wrong_rate"):
        assert look(rows, probe="scramble", metric=metric).value == 1.0
    on_clean = look(rows, probe="clean", metric="side_with_teacher_rate")
    assert (on_clean.value, on_clean.teacher, on_clean.teacher_run) == (1.0, "vit", "teacher-vit-1")


def test_a_student_that_is_another_independent_exceeds_the_second_one_by_nothing(made):
    def one_set(arm):
        return lambda seed: {GRID: made.network(0.8, 0.6, arm)(seed)[GRID]}

    seeds = range(12)
    kinds = {arm: one_set(arm) for arm in ("kd", "independent", "second_independent", "teacher")}
    taught = {"teacher": "vit", "teacher_run": "teacher-vit-0"}
    runs = [ObservedRun(made.record("teacher", 0, student="vit"), kinds["teacher"](0))]
    for seed in seeds:
        runs += [
            ObservedRun(made.record(arm, seed, **(taught if arm == "kd" else {})), kinds[arm](seed)) for arm in kinds if arm != "teacher"
        ]
    excess = [row for row in results_table(runs, PAIRS) if row.metric == "side_with_teacher_excess"]
    assert len(excess) == len(seeds)
    found = np.array([row.value for row in excess])
    assert abs(found.mean()) < 3 * found.std(ddof=1) / len(found) ** 0.5
    assert sum(row.low <= 0 <= row.high for row in excess) >= 10
    assert abs(found.mean()) < 0.03


def test_a_student_like_the_independent_of_its_own_seed_has_taken_nothing_over(made):
    """Runs of one seed share initialisation and batches: a student's answers are here those of its seed's independent on 4 of 10 images."""
    of_arm = {"kd": 0, "independent": 1, "second_independent": 2, "teacher": 3}
    shared = np.random.default_rng(0).random(made.n_images) < 0.4
    runs = []
    for seed in range(12):
        own = {arm: made.answers(0.6, [seed, key]) for arm, key in of_arm.items()}
        own["kd"] = np.where(shared, own["independent"], own["kd"])
        for arm, answered in own.items():
            taught = {"teacher": "vit", "teacher_run": f"teacher-vit-{seed}"} if arm == "kd" else {}
            record = made.record(arm, seed, student="vit" if arm == "teacher" else "cnn", **taught)
            runs.append(ObservedRun(record, {CLEAN: made.seen(made.answers(0.9, [seed, 4])), GRID: made.seen(answered)}))
    found = np.array([row.value for row in results_table(runs, PAIRS) if (row.metric, row.probe) == ("side_with_teacher_excess", GRID[0])])
    assert len(found) == 12
    assert abs(found.mean()) < 3 * found.std(ddof=1) / 12**0.5
    assert abs(found.mean()) < 0.03


def test_sides_are_taken_between_the_teacher_run_and_the_independent_of_another_seed(made, everyone, of_everyone):
    for seed in (0, 1):
        names = (f"kd-cnn-{seed}", f"teacher-vit-{seed}", f"independent-cnn-{1 - seed}", f"second_independent-cnn-{seed}")
        of = [decisions(everyone, name) for name in names]
        for figure, estimate in side_with_teacher(*of, made.labels).items():
            assert numbers(look(of_everyone, run=f"kd-cnn-{seed}", level="grid=3", metric=f"side_with_teacher_{figure}")) == numbers(
                estimate
            )
    controlled = look(of_everyone, run="kd+control_teacher-cnn-1", level="grid=3", metric="side_with_teacher_rate")
    assert controlled.teacher_run == "teacher-cnn-1"
    assert {row.arm for row in of_everyone if row.metric == "side_with_teacher_rate"} == {
        "kd", "kd+twin", "kd+control_teacher", "kd+matched_teacher",
    }  # fmt: skip


def test_without_a_second_independent_the_rate_stays_and_the_excess_says_why(everyone):
    rows = results_table([run for run in everyone if run.record.arm != "second_independent"], PAIRS)
    assert look(rows, run="kd-cnn-0", level="grid=3", metric="side_with_teacher_rate").status == "ok"
    assert "second independent" in look(rows, run="kd-cnn-0", level="grid=3", metric="side_with_teacher_excess").reason
    alone = results_table([run for run in everyone if "independent" not in run.record.arm], PAIRS)
    assert not {row.metric for row in alone if row.metric.startswith("side_with_teacher")}


def test_a_students_errors_are_set_beside_its_teachers(made, everyone, of_everyone):
    rows = [row for row in of_everyone if row.run == "kd-cnn-0" and row.level == "grid=3"]
    a, b = decisions(everyone, "kd-cnn-0"), decisions(everyone, "teacher-vit-0")
    kappa = look(rows, metric="error_consistency")
    assert numbers(kappa) == numbers(error_consistency(a == made.labels, b == made.labels))
    assert (kappa.teacher, kappa.teacher_run) == ("vit", "teacher-vit-0")
    ceiling = consistency_ceiling(a == made.labels, b == made.labels)["ceiling"]
    assert numbers(look(rows, metric="consistency_ceiling_ceiling")) == numbers(ceiling)
    assert look(rows, metric="same_wrong_label_rate").value == same_wrong_label(a, b, made.labels)["rate"].value
    assert not [row for row in rows if row.metric.startswith("mcnemar")]


def test_who_stands_beside_which_teacher(of_everyone):
    beside = {}
    for row in of_everyone:
        if row.metric == "fidelity_kl" and row.probe == "scramble":
            beside.setdefault(row.run, set()).add(row.teacher_run)
    of_seed_0 = {"teacher-vit-0", "teacher-vit-0@epoch-002"}  # both taught a student of that seed
    assert beside == {
        "kd-cnn-0": {"teacher-vit-0"},
        "kd-cnn-1": {"teacher-vit-1"},
        "kd+control_teacher-cnn-0": {"teacher-cnn-0"},
        "kd+control_teacher-cnn-1": {"teacher-cnn-1"},
        "kd+matched_teacher-cnn-0": {"teacher-vit-0@epoch-002"},
        **{f"{arm}-cnn-0": of_seed_0 for arm in ("independent", "second_independent", "kd+twin")},
        **{f"{arm}-cnn-1": {"teacher-vit-1"} for arm in ("independent", "second_independent", "kd+twin")},
    }


def test_other_draws_beside_the_teacher_are_an_error(made, everyone):
    drawn = {("hue", "a", draw): made.seen(made.labels) for draw in (0, 1)}
    once = {("hue", "a", 0): made.seen(made.labels)}
    extra = {"kd-cnn-0": once, "teacher-vit-0": drawn}
    runs = [ObservedRun(run.record, {**run.observations, **extra.get(run.record.run, {})}) for run in everyone]
    with pytest.raises(ValueError, match="1 and 2 draws; the same draws must be compared"):
        results_table(runs, PAIRS)


KNOWS_NOTHING = {
    "accuracy", "confidence", "fidelity_agreement", "fidelity_kl",
    *(f"calibration_{figure}" for figure in ("ece", "ece_equal_mass", "nll", "brier")),
    *(f"cue_choice_{cue}" for cue in ("shape", "texture", "colour")),
    *(f"cue_counts_{figure}" for figure in ("shape", "texture", "either")),
}  # fmt: skip
"""What a network that knows nothing is measured in all the same: what it answered, how often rightly, how sure of itself. None is read
as a bias."""


def cues(made, run):
    """The run, with a set of its own whose three cues conflict."""
    factors = {"shape": made.labels, "texture": (made.labels + 1) % 10, "colour": (made.labels + 2) % 10}
    seen = made.seen(run.observations[CLEAN].decisions, factors=factors, split="conflict")
    return ObservedRun(run.record, {**run.observations, ("conflict", "", 0): seen}, run.probed, run.measured)


def with_student(made, everyone, answer):
    """Everyone, with a student that answers each set by `answer`."""
    runs = []
    for run in everyone:
        if run.record.run == "kd-cnn-0":
            run = ObservedRun(run.record, {place: made.seen(answer(seen)) for place, seen in run.observations.items()})
        runs.append(cues(made, run))
    return [row for row in results_table(runs, PAIRS) if row.run == "kd-cnn-0"]


def test_a_constant_answer_is_measured_in_nothing_that_would_be_read_as_a_bias(made, everyone):
    rows = with_student(made, everyone, lambda seen: np.zeros_like(seen.labels))
    assert {row.metric for row in rows if row.status == "ok"} == KNOWS_NOTHING
    refused = {row.metric for row in rows if row.status != "ok"}
    assert {"retention", "seed_ratio", "conditional_retention_share", "accuracy_residual_share", "agreement_kappa", "js_invariance",
            "shape_bias", "cue_bias_shape", "side_with_teacher_rate", "side_with_teacher_wrong_excess", "error_consistency",
            "consistency_ceiling_reached", "same_wrong_label_rate"} <= refused  # fmt: skip
    assert not refused & KNOWS_NOTHING
    assert all(row.reason for row in rows if row.status != "ok")


def test_answers_at_random_are_invariant_by_nothing_and_hold_no_bias(made, everyone):
    generator = np.random.default_rng(3)
    rows = with_student(made, everyone, lambda seen: generator.integers(0, 10, len(seen.labels)))
    found = {row.metric for row in rows if row.status == "ok"}
    assert found == {
        *KNOWS_NOTHING,
        "agreement_kappa",
        "js_invariance",
        "shape_bias",
        *(f"cue_bias_{cue}" for cue in ("shape", "texture", "colour")),
    }
    assert abs(look(rows, level="grid=3", metric="agreement_kappa").value) < 0.1  # which says so itself


def test_sides_beside_a_network_that_knows_nothing_are_refused(made, everyone):
    runs = [
        ObservedRun(run.record, {place: made.seen(np.zeros_like(seen.labels)) for place, seen in run.observations.items()})
        if run.record.run == "independent-cnn-1"
        else run
        for run in everyone
    ]
    row = look(results_table(runs, PAIRS), run="kd-cnn-0", level="grid=3", metric="side_with_teacher_rate")
    assert row.status == "not_measurable"
    assert row.reason.startswith("independent: cnn, seed 1: clean accuracy 10.0 %")


class ReadAsAskedFor(dict):
    """Observations that are made anew whenever one is asked for, and remember which sets were asked for in which order."""

    def __init__(self, found, asked):
        super().__init__(found)
        self.asked = asked

    def __getitem__(self, place):
        self.asked.append(place[0])
        of = super().__getitem__(place)
        return type(of)(of.logits.copy(), of.labels, of.index, of.factors, of.split)


def test_sets_are_read_one_after_another_for_all_networks(made, everyone):
    asked = []
    runs = [ObservedRun(run.record, {**run.observations, ("hue", "a", 0): run.observations[CLEAN]}) for run in everyone[:4]]
    lazy = [ObservedRun(run.record, ReadAsAskedFor(run.observations, asked), np.arange(made.n_images)) for run in runs]
    assert results_table(lazy, PAIRS) == results_table(runs, PAIRS)
    assert asked[-12:] == ["clean"] * 4 + ["scramble"] * 4 + ["hue"] * 4  # after the gates


def test_what_is_read_of_the_clean_images_once_for_all_probes_changes_no_figure(made):
    generator = np.random.default_rng(5)
    logits = generator.normal(size=(4, made.n_images, 10)).astype(np.float32)
    sets = dict(zip((CLEAN, ("hue", "a", 0), ("hue", "a", 1), ("edges", "b", 0)), logits, strict=True))
    one = made.seen(made.labels)
    run = fitted(ObservedRun(made.record("independent"), {place: type(one)(of, one.labels, one.index) for place, of in sets.items()}))
    rows = results_table([run], [])
    for probe, answers in (("hue", logits[1:3]), ("edges", logits[3])):
        assert numbers(look(rows, probe=probe, metric="js_invariance")) == numbers(js_invariance(logits[0], answers, temperature=2.0))
