"""Sums over an epoch: by name, whatever order and names come."""

import torch

from crossdistill.core.types import Activations, Batch, Clock
from crossdistill.train.sums import EpochSums


def noted(sums: EpochSums, step: int = 0, share: float = 1.0, **terms: float) -> None:
    labels = torch.tensor([0, 1, -1])
    rows = torch.zeros(3, 3, 1, 1, dtype=torch.uint8)
    batch = Batch(rows, rows, labels, torch.zeros(3, 2), torch.arange(3), torch.ones(3, dtype=torch.bool), Clock(step, 9, 0, 1))
    student = Activations(torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]))  # class 0 everywhere: right once of two labelled
    sums.note(batch, student, {name: torch.tensor(value) for name, value in terms.items()}, share)


def test_terms_are_weighed_by_their_share_and_labelled_images_are_counted() -> None:
    sums = EpochSums(torch.device("cpu"))
    noted(sums, share=0.25, loss=4.0, ce=2.0)
    noted(sums, share=0.75, loss=8.0, ce=0.0)
    assert sums.totals() == {"loss": 7.0, "ce": 0.5, "right": 2.0, "labelled": 4.0}


def test_sums_from_a_checkpoint_keep_their_names_whatever_their_order() -> None:
    sums, resumed = EpochSums(torch.device("cpu")), EpochSums(torch.device("cpu"))
    noted(sums, loss=1.0, ce=2.0)
    resumed.values = dict(sorted(sums.values.items(), reverse=True))
    for each in (sums, resumed):
        noted(each, loss=10.0, ce=20.0)
    assert resumed.totals() == sums.totals() == {"loss": 11.0, "ce": 22.0, "right": 2.0, "labelled": 4.0}


def test_a_term_may_come_late_or_stay_away() -> None:
    sums = EpochSums(torch.device("cpu"))
    noted(sums, loss=1.0)
    noted(sums, loss=1.0, late=3.0)
    noted(sums, loss=1.0)
    assert sums.totals() == {"loss": 3.0, "late": 3.0, "right": 3.0, "labelled": 6.0}


def test_the_first_step_that_is_not_finite_is_remembered() -> None:
    sums = EpochSums(torch.device("cpu"))
    noted(sums, step=3, loss=1.0)
    assert sums.bad_step() == -1
    noted(sums, step=4, loss=float("nan"))
    noted(sums, step=5, loss=float("inf"))
    sums.note_bad(torch.tensor(1.0), 6)
    assert sums.bad_step() == 4
