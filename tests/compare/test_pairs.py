"""Networks two by two: over which images, with which figures."""

import numpy as np
import pytest

from crossdistill.compare import ObservedRun, pairs_table
from crossdistill.core.types import UNLABELLED
from crossdistill.metrics.error_consistency import error_consistency
from crossdistill.metrics.same_wrong_label import same_wrong_label


@pytest.fixture
def networks(made):
    kinds = {name: made.network(accuracy, accuracy - 0.2, name) for name, accuracy in {"a": 0.9, "b": 0.8, "c": 0.7}.items()}
    return [ObservedRun(made.record(name), kind(0)) for name, kind in kinds.items()]


def look(rows, **wanted):
    (row,) = [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]
    return row


def test_each_two_networks_stand_once_on_every_set(networks):
    rows = [row for row in pairs_table(networks) if row.metric == "error_consistency"]
    names = [run.record.run for run in networks]
    assert {(row.a, row.b) for row in rows} == {(names[0], names[1]), (names[0], names[2]), (names[1], names[2])}
    assert [row.level for row in rows[:5]] == ["", "grid=2", "grid=3", "grid=4", "auc"]


def test_figures_are_those_of_the_metrics(networks, made):
    a, b = (run.observations["clean", "", 0].decisions for run in networks[:2])
    rows = [row for row in pairs_table(networks[:2]) if row.probe == "clean"]
    kappa = look(rows, metric="error_consistency")
    expected = error_consistency(a == made.labels, b == made.labels)
    assert (kappa.value, kappa.low, kappa.high, kappa.n) == (expected.value, expected.low, expected.high, expected.n)
    assert look(rows, metric="same_wrong_label_rate").value == same_wrong_label(a, b, made.labels)["rate"].value
    assert look(rows, metric="mcnemar_difference").value == pytest.approx(np.mean(a == made.labels) - np.mean(b == made.labels))


def test_only_images_that_both_answered_count_and_order_does_not(networks, made):
    first, second = (run.observations["clean", "", 0].decisions for run in networks[:2])
    kept = np.random.default_rng(0).permutation(made.n_images)[:400]
    part = ObservedRun(networks[1].record, {("clean", "", 0): made.seen(second[kept], made.labels[kept], index=kept)})
    row = look(pairs_table([networks[0], part]), metric="error_consistency")
    assert (row.n, row.probe) == (400, "clean")
    kept = np.sort(kept)
    assert row.value == pytest.approx(error_consistency((first == made.labels)[kept], (second == made.labels)[kept]).value)


def test_without_labels_nothing_is_said_about_errors(networks, made):
    unlabelled = [
        ObservedRun(
            run.record, {("clean", "", 0): made.seen(run.observations["clean", "", 0].decisions, np.full(made.n_images, UNLABELLED))}
        )
        for run in networks
    ]
    assert "error_consistency" not in {row.metric for row in pairs_table(unlabelled)}


def test_other_labels_of_the_same_images_are_an_error(networks, made):
    shifted = ObservedRun(networks[1].record, {("clean", "", 0): made.seen(made.labels, np.roll(made.labels, 1))})
    with pytest.raises(ValueError, match="on 'clean': the same images have other labels"):
        pairs_table([networks[0], shifted])


def test_other_draws_are_an_error(networks, made):
    drawn = {("scramble", "grid=2", draw): made.seen(made.labels) for draw in (0, 1)}
    with pytest.raises(ValueError, match="1 and 2 draws; the same draws must be compared"):
        pairs_table([networks[0], ObservedRun(networks[1].record, drawn)])
