"""Rows of an earlier table that stand where only decisions are left of a network: those, in their place, and no others."""

from dataclasses import replace

import numpy as np
import pytest

from crossdistill.compare import ObservedRun, results_table
from crossdistill.compare.kept import changed_runs, with_kept_results, with_kept_similarity
from crossdistill.compare.similarity import similarity_table
from crossdistill.core.records import EstimateModel


@pytest.fixture
def whole(made):
    """Two runs of each arm, with logits and features, and the pair between them."""

    def warmed(run):
        record = run.record.model_copy(update={"estimates": {"temperature": EstimateModel(value=1.0)}})
        features = np.random.default_rng(run.record.seed).normal(size=(40, 3)).astype(np.float32)
        return replace(run, record=record, measured={"features": {"pooled": features}})

    runs, pairs = made.study(
        2, student=made.network(0.8, 0.6, "kd"), independent=made.network(0.75, 0.5, "alone"), teacher=made.network(0.9, 0.7, "teacher")
    )
    return [warmed(run) for run in runs], pairs


def bare(run: ObservedRun) -> ObservedRun:
    """What published decisions tell of a run."""
    found = {place: replace(seen, logits=seen.logits[:, :0], decided=seen.decisions) for place, seen in run.observations.items()}
    return replace(run, observations=found, measured={})


def names(runs) -> set[str]:
    return {run.record.run for run in runs}


def test_with_decisions_alone_the_whole_table_stands_in_its_order(whole):
    runs, pairs = whole
    earlier, now = results_table(runs, pairs), [bare(run) for run in runs]
    rows = results_table(now, pairs)
    assert {row.metric for row in earlier} > {row.metric for row in rows}
    assert with_kept_results(rows, earlier, now, bare=names(now), instruments={"features"}) == earlier


def test_one_network_made_again_has_its_own_rows_and_those_beside_the_others(whole):
    runs, pairs = whole
    earlier, now = results_table(runs, pairs), [runs[0], *(bare(run) for run in runs[1:])]
    assert with_kept_results(results_table(now, pairs), earlier, now, bare=names(now[1:]), instruments=()) == earlier


def test_nothing_is_kept_of_a_network_that_answers_otherwise_than_it_did(whole, made):
    runs, pairs = whole
    earlier = results_table(runs, pairs)
    other = replace(runs[0], observations=made.network(0.9, 0.7, "another machine")(0))
    now = [other, *(bare(run) for run in runs[1:])]
    rows = results_table(now, pairs)
    assert changed_runs(rows, earlier) == {"teacher-vit-0"}
    kept = with_kept_results(rows, earlier, now, bare=names(now[1:]), instruments=())
    assert [row for row in kept if row.run == "teacher-vit-0"] == [row for row in rows if row.run == "teacher-vit-0"]
    assert {row.teacher_run for row in kept if row.metric == "fidelity_kl"} == {"teacher-vit-1"}
    assert "kd-cnn-0" in {row.run for row in kept if row.metric == "confidence"}  # its own logits were what they were


def test_figures_of_what_is_no_longer_there_are_not_kept(whole):
    runs, pairs = whole
    earlier = results_table(runs, pairs)
    clean = [bare(replace(run, observations={("clean", "", 0): run.observations["clean", "", 0]})) for run in runs[1:]]
    kept = with_kept_results(results_table(clean, pairs), earlier, clean, bare=names(clean), instruments=())
    assert {row.probe for row in kept} == {"clean"}
    assert "teacher-vit-0" not in {name for row in kept if row.metric.startswith("fidelity") for name in (row.run, row.teacher_run)}


def test_what_is_read_as_a_bias_is_not_kept_where_the_signal_gate_says_otherwise(whole):
    runs, pairs = whole
    earlier = [row.model_copy(update={"signal_gate": "failed"}) if row.probe == "scramble" else row for row in results_table(runs, pairs)]
    now = [bare(run) for run in runs]
    kept = with_kept_results(results_table(now, pairs), earlier, now, bare=names(now), instruments=())
    metrics = {row.metric: row.signal_gate for row in kept if row.probe == "scramble"}
    assert "js_invariance" not in metrics
    assert metrics["confidence"] == "passed"


def test_similarities_of_networks_whose_features_are_gone_are_kept_and_no_others(whole):
    runs, pairs = whole
    earlier = similarity_table(runs, pairs)
    now = [bare(run) for run in runs]
    assert with_kept_similarity([], earlier, now, pairs, changed=()) == earlier
    some = [runs[0], *now[1:]]
    assert with_kept_similarity(similarity_table(some, pairs), earlier, some, pairs, changed=()) == earlier
    kept = with_kept_similarity([], earlier, now, pairs, changed={"teacher-vit-0"})
    assert kept == [row for row in earlier if "teacher-vit-0" not in (row.a, row.b)]
    assert kept
    assert with_kept_similarity([], earlier, runs, pairs, changed=()) == []  # features are here, and gave no row
