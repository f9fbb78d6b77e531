"""What a training sums up over an epoch, on the device: losses, right answers, and the first step that was not finite."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from crossdistill.core.errors import DivergedError
from crossdistill.core.types import Activations, Batch
from crossdistill.ops.parallel import averaged

NOT_FINITE = "was not finite"
"""Words of every DivergedError's message, by which a training that diverged is told from one that failed otherwise."""


class EpochSums:
    """Sums over the steps of an epoch. Nothing is read from the device until `totals` or `bad_step` is asked for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.first_bad = torch.full((), -1, device=device)
        self.reset()

    def reset(self) -> None:
        """Begin anew, as at an epoch's start."""
        self.names: tuple[str, ...] = ()
        self.row = torch.zeros(0, dtype=torch.float64, device=self.device)  # one number for each name: one addition a step

    @torch.no_grad()
    def note(self, batch: Batch, student: Activations, terms: Mapping[str, Tensor], share: float) -> None:
        """Add a micro-batch: `terms` with its share of the batch, and how many of its labelled images the student got right."""
        right = student.logits[:: batch.views].argmax(dim=1) == batch.labels  # never so where the label is -1
        counts = torch.stack([right, batch.labels >= 0]).sum(dim=1)
        row = torch.cat([share * torch.stack([value.detach() for value in terms.values()]).double(), counts.double()])
        self._name(*terms, "right", "labelled")
        row = averaged(row)
        self.row[: len(row)] += row
        self.note_bad(row[self.names.index("loss")], batch.clock.step)  # of all ranks: what one of them refuses, all must

    def note_bad(self, value: Tensor, step: int) -> None:
        """Remember the step if the value is the first that is not finite."""
        self.first_bad = torch.where(value.detach().isfinite() | (self.first_bad >= 0), self.first_bad, step)

    def bad_step(self) -> int:
        """The first step with a value that was not finite, -1 where there was none; waits for the device."""
        return int(self.first_bad)

    def refuse_bad(self, description: str, steps_per_epoch: int, checkpoint: Path) -> None:
        """Raise DivergedError where a value was not finite; waits for the device. `checkpoint` is where the state is kept, if it is."""
        step = self.bad_step()
        if step >= 0:
            kept = f"The last good state is kept in {checkpoint}. " if checkpoint.exists() else ""
            raise DivergedError(
                f"{description}: the loss or its gradient {NOT_FINITE} at step {step} (epoch {step // steps_per_epoch + 1}). {kept}"
                "Lower `learning_rate`, set `clip_norm`, or use `precision: fp32`."
            )

    @property
    def values(self) -> dict[str, Tensor]:
        """The sums by name: what a checkpoint keeps, and gives back."""
        return dict(zip(self.names, self.row, strict=True))

    @values.setter
    def values(self, given: Mapping[str, Tensor]) -> None:
        self.names, self.row = tuple(given), torch.stack([*given.values()]) if given else self.row[:0]

    def totals(self) -> dict[str, float]:
        """The sums since the last `reset`; waits for the device."""
        return dict(zip(self.names, self.row.tolist(), strict=True))

    def means(self, steps: int) -> tuple[dict[str, float], float | None]:
        """The mean of each term over an epoch's steps, and the share of labelled images that were right, None without any."""
        totals = self.totals()
        right, labelled = totals.pop("right"), totals.pop("labelled")
        return {name: value / steps for name, value in totals.items()}, right / labelled if labelled else None

    def _name(self, *names: str) -> None:
        """Give these names the first places, in this order; a sum that is new begins at zero."""
        if names != self.names:
            before = self.values
            self.values = {name: before.get(name, self.row.new_zeros(())) for name in dict.fromkeys((*names, *before))}
