"""The signal gate of planted studies: who passes it, who decides it, and what a failed one leaves in the tables."""

import numpy as np
import pytest

from crossdistill.compare import Contrast, ObservedRun, Pair, inheritance_table, results_table
from crossdistill.compare.gates import SignalGate, signal_gates
from crossdistill.core.records import EstimateModel
from crossdistill.core.types import UNLABELLED
from crossdistill.metrics._gates import signal_gate
from crossdistill.stats import wilson

CLEAN = ("clean", "", 0)
PAIRED = {"conditional_retention_share", "conditional_retention_above_chance"}
INVARIANCE = {"agreement_kappa", "js_invariance"}
SIDES = {f"side_with_teacher_{of}{figure}" for of in ("", "wrong_") for figure in ("rate", "second_rate", "excess")}
PAIRS = [Pair(0, "vit", "cnn", ("kd",))]


@pytest.fixture
def run(made):
    """A network that is right on `clean` of 1,000 clean images, and on so many at each level of the probe "noise"."""

    def right(count):
        return made.seen(np.where(np.arange(made.n_images) < count, made.labels, (made.labels + 1) % 10))

    def build(arm, seed=0, clean=900, **levels):
        found = {} if arm == "ceiling" else {CLEAN: right(clean)}
        taught = {"teacher": "vit", "teacher_run": "teacher-vit-0"} if arm == "kd" else {}
        record = made.record(arm, seed, student="vit" if arm == "teacher" else "cnn", **taught)
        record = record.model_copy(update={"estimates": {"temperature": EstimateModel(value=1.0)}})
        return ObservedRun(record, found | {("noise", level, 0): right(count) for level, count in levels.items()})

    return build


def statuses(runs):
    return {level: gate.status for (probe, level), gate in signal_gates(runs).items() if probe == "noise"}


def test_any_networks_lower_bound_passes_a_level_at_no_cost(run):
    gate = signal_gates([run("teacher", low=340), run("independent", low=120)])["noise", "low"]
    assert (gate.status, gate.floor, gate.reason) == ("passed", 0.1, None)
    assert gate.ceiling == wilson(340, 1000).low  # 0.311
    assert gate.reached_by == "the lower bound of teacher: vit, seed 0"


def test_a_point_estimate_above_the_line_passes_only_where_its_bound_does(run):
    assert statuses([run("independent", low=310)]) == {"low": "not run"}  # 31.0 % on 1,000 images may be 28.2 %


def test_a_network_trained_on_the_probe_decides_by_its_accuracy_as_it_is(run):
    others = [run("teacher", low=120), run("independent", low=120)]
    passed, failed = (signal_gates([*others, run("ceiling", low=count)])["noise", "low"] for count in (300, 299))
    assert (passed.status, passed.ceiling) == ("passed", 0.3)
    assert (failed.status, failed.ceiling) == ("failed", 0.299)
    assert failed.reason == (
        "too little signal: the ceiling, 29.9 % (cnn, trained on such images), is 19.9 points above the 10.0 % of a "
        "constant answer; the signal gate asks for 20 above it"
    )


def test_a_ceiling_under_another_networks_lower_bound_is_named_beside_it(run):
    gate = signal_gates([run("independent", low=250), run("ceiling", low=50)])["noise", "low"]
    assert gate.status == "failed"
    assert gate.reached_by == "the lower bound of independent: cnn, seed 0; cnn, trained on such images: 5.0 %"


def test_the_best_of_several_ceilings_counts(run):
    assert statuses([run("ceiling", low=150), run("ceiling", 1, low=310), run("independent", low=100)]) == {"low": "passed"}


def test_the_average_is_held_to_the_mean_of_its_levels_ceilings(run):
    # With the bounds 0.671 and 0.101: 0.386 on average, 28.6 points above the floor, is enough although one level is not known.
    assert statuses([run("independent", low=700, high=120)]) == {"low": "passed", "high": "not run", "auc": "passed"}
    # 0.311 and 0.101: 0.206 is not, until a ceiling is known for both levels.
    assert statuses([run("independent", low=340, high=120)]) == {"low": "passed", "high": "not run", "auc": "not run"}
    trained = [run("independent", low=340, high=120), run("ceiling", low=330, high=110), run("ceiling", 1, high=105)]
    assert statuses(trained) == {"low": "passed", "high": "failed", "auc": "failed"}
    assert signal_gates(trained)["noise", "auc"].ceiling == pytest.approx((0.33 + 0.11) / 2)
    assert "(the mean over the levels)" in signal_gates(trained)["noise", "auc"].reason


def test_the_average_does_not_fail_on_the_lower_bound_of_a_level_whose_ceiling_nobody_knows(run):
    found = [run("independent", low=340, high=120), run("ceiling", high=110)]  # what could be reached at "low" may be far more than 0.31
    assert statuses(found) == {"low": "passed", "high": "failed", "auc": "not run"}


def test_a_training_shared_by_several_levels_passes_them_and_fails_none(run):
    shared = run("ceiling", low=330, high=110)
    assert statuses([run("independent", low=120, high=120), shared]) == {"low": "passed", "high": "not run", "auc": "not run"}
    alone = run("ceiling", 1, high=450)
    assert statuses([run("independent", low=120, high=120), shared, alone]) == {"low": "passed", "high": "passed", "auc": "passed"}


def study(run, ceiling):
    arms = {"teacher": 300, "independent": 250, "kd": 270}
    runs = [run(arm, seed, low=800 - 10 * seed, high=count // 2 + seed) for arm, count in arms.items() for seed in range(2)]
    return [*runs, run("ceiling", low=700, high=ceiling), run("ceiling", 1, high=ceiling)]


def test_an_average_that_passed_names_its_failed_levels(run):
    runs = study(run, ceiling=200)
    gate = signal_gates(runs)["noise", "auc"]
    assert (gate.status, gate.failed_levels) == ("passed", ("high",))
    note = "the mean includes what failed the signal gate: high"
    results = results_table(runs, PAIRS)
    retention = [row for row in results if (row.metric, row.level) == ("retention", "auc")]
    assert {row.reason for row in retention} == {f"curve of 2 levels; {note}"}
    contrasts = inheritance_table(results, runs, PAIRS, [])
    assert {row.level_or_auc: row.note for row in contrasts if row.metric == "accuracy"} == {
        "": None,
        "low": None,
        "high": None,
        "auc": note,
    }


def test_choices_between_cues_are_refused_at_a_failed_level_too(made, run):
    other = (made.labels + 1) % 10
    factors = {"shape": made.labels, "texture": other}

    def conflicting(one):
        probed = {place: made.seen(seen.decisions, factors=factors) for place, seen in one.observations.items() if place != CLEAN}
        return ObservedRun(one.record, {**one.observations, **probed})

    rows = results_table([conflicting(one) for one in study(run, ceiling=200)], PAIRS)
    of_choice = {row.level: (row.status, row.value) for row in rows if row.metric == "shape_bias" and row.arm == "kd"}
    assert of_choice["high"] == ("not_measurable", None)
    assert of_choice["low"][0] == "ok"


def test_could_pass_and_the_verdict_agree_at_the_very_edge():
    edge = 1 - 0.2  # 1 - edge is a little under 0.2 in floating point
    assert 1 - edge < 0.2
    gate = SignalGate(signal_gate(0.9, edge, trained=False), 0.9, edge, "someone")
    assert gate.status == "not run"
    assert gate.could_pass


def test_a_ceilings_rows_say_how_many_images_the_probe_dropped(made, run):
    kept = np.arange(600)
    shown = {("noise", "low", 0): made.seen(made.labels[:600], made.labels[:600], index=kept)}
    ceiling = ObservedRun(made.record("ceiling"), shown, np.arange(1000))
    other = ObservedRun(made.record("independent"), {**run("independent").observations, **shown}, np.arange(1000))
    rows = results_table([ceiling, other], [])
    assert {(row.arm, row.n_rejected) for row in rows if row.probe == "noise"} == {("ceiling", 400), ("independent", 400)}


def test_the_floor_is_the_largest_class_share_of_the_rows_that_the_probe_kept(made, run):
    kept = np.flatnonzero(made.labels < 2)[:150]  # 75 of each of two classes, and half of these of another one
    labels = made.labels[kept]
    shown = made.seen(labels, labels, index=kept)
    probed = ObservedRun(made.record("independent"), {**run("independent").observations, ("noise", "low", 0): shown})
    assert signal_gates([probed])["noise", "low"].floor == 0.5


def test_draws_are_one_figure_and_clean_images_and_sets_of_their_own_have_no_gate(made):
    wrong = (made.labels + 1) % 10
    seen = {CLEAN: made.seen(made.labels), ("conflict", "", 0): made.seen(made.labels, split="conflict")}
    draws = {("noise", "low", 0): made.seen(made.labels), ("noise", "low", 1): made.seen(wrong)}
    gates = signal_gates([ObservedRun(made.record("independent"), seen | draws)])
    assert gates.keys() == {("noise", "low")}
    assert 0.45 < gates["noise", "low"].ceiling < 0.5


def test_images_without_labels_have_no_gate(made):
    blank = np.full(made.n_images, UNLABELLED)
    seen = {CLEAN: made.seen(made.labels, blank), ("noise", "low", 0): made.seen(made.labels, blank)}
    assert signal_gates([ObservedRun(made.record("independent"), seen)]) == {}


def test_a_failed_level_keeps_its_accuracy_and_loses_what_is_read_as_a_bias(run):
    rows = [row for row in results_table(study(run, ceiling=200), PAIRS) if row.level == "high" and row.arm != "ceiling"]
    assert {row.signal_gate for row in rows} == {"failed"}
    kept = {row.metric for row in rows if row.status == "ok"}
    assert {"accuracy", "confidence", "fidelity_agreement", "calibration_ece", "error_consistency"} <= kept
    assert {row.metric for row in rows if row.status == "not_measurable"} == {
        "retention",
        "seed_ratio",
        *PAIRED,
        "conditional_retention_chance",
        *INVARIANCE,
        *SIDES,
    }
    assert {row.reason for row in rows if row.metric == "retention"} == {
        "too little signal: the ceiling, 20.0 % (cnn, trained on such images), is 10.0 points above the 10.0 % of a "
        "constant answer; the signal gate asks for 20 above it"
    }


def test_a_level_that_was_not_gated_keeps_its_figures_and_says_so(run):
    rows = [row for row in results_table(study(run, ceiling=200)[:-2], PAIRS) if row.level == "high"]
    assert {row.signal_gate for row in rows} == {"not run"}
    assert {row.status for row in rows if row.metric not in SIDES} == {"ok"}  # no second independent, few images on which two differ


def test_contrasts_on_a_failed_level_are_not_measurable_and_the_others_are(run):
    runs = study(run, ceiling=200)
    rows = inheritance_table(results_table(runs, PAIRS), runs, PAIRS, [Contrast(0, "kd", "noise")])
    failed = [row for row in rows if row.level_or_auc == "high"]
    calibration = {f"calibration_{figure}" for figure in ("ece", "ece_equal_mass", "brier")}  # nats have no points to contrast
    assert {row.metric for row in failed} == {"accuracy", "confidence", "retention", *PAIRED, *INVARIANCE, *calibration}
    assert {(row.verdict, row.difference, row.teacher_gap, row.signal_gate) for row in failed} == {("not_measurable", None, None, "failed")}
    assert all("too little signal" in row.reason for row in failed)
    others = {row.level_or_auc: row.signal_gate for row in rows if row.level_or_auc != "high" and row.difference is not None}
    assert others == {"": "", "low": "passed", "auc": "passed"}


def test_a_declared_contrast_without_signal_counts_in_holms_family_as_unmeasured(run):
    runs = study(run, ceiling=200)
    drowned = [ObservedRun(r.record, {place: seen for place, seen in r.observations.items() if place[1] != "low"}) for r in runs]
    rows = inheritance_table(results_table(drowned, PAIRS), drowned, PAIRS, [Contrast(0, "kd", "noise"), Contrast(0, "kd", "clean")])
    declared = {row.probe: row for row in rows if row.role == "primary"}
    assert (declared["noise"].level_or_auc, declared["noise"].p_holm, declared["noise"].family_size) == ("high", None, 2)
    assert declared["noise"].verdict == "not_measurable"


def test_a_ceiling_stands_beside_no_teacher_and_in_no_arm(run):
    runs = study(run, ceiling=500)
    results = results_table(runs, PAIRS)
    of_ceiling = [row for row in results if row.arm == "ceiling"]
    assert {row.level for row in of_ceiling if row.metric == "accuracy"} == {"low", "high", "auc"}
    assert not [row for row in of_ceiling if row.teacher_run or row.metric == "retention"]
    alone = inheritance_table(results_table(runs[:-2], PAIRS), runs[:-2], PAIRS, [])
    beside = inheritance_table(results, runs, PAIRS, [])
    assert [row.difference for row in beside] == [row.difference for row in alone]
