"""What a training sums up over an epoch, on the device: losses, right answers, and the first step that was not finite."""

from collections.abc import Mapping

import torch
from torch import Tensor

from crossdistill.core.types import Activations, Batch
from crossdistill.ops.parallel import averaged


class EpochSums:
    """Sums over the steps of an epoch. Nothing is read from the device until `totals` or `bad_step` is asked for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.values: dict[str, Tensor] = {}
        self.first_bad = torch.full((), -1, device=device)

    @torch.no_grad()
    def note(self, batch: Batch, student: Activations, terms: Mapping[str, Tensor], share: float) -> None:
        """Add a micro-batch: `terms` with its share of the batch, and how many of its labelled images the student got right."""
        labelled = batch.labels >= 0
        counts = {
            "right": ((student.logits[:: batch.views].argmax(dim=1) == batch.labels) & labelled).sum(),
            "labelled": labelled.sum(),
        }
        added = {**{name: share * value.detach() for name, value in terms.items()}, **counts}
        row = averaged(torch.stack([value.double() for value in added.values()]))
        for name, value in zip(added, row, strict=True):
            self.values[name] = self.values.get(name, torch.zeros((), dtype=torch.float64, device=self.device)) + value
        self.note_bad(terms["loss"], batch.clock.step)

    def note_bad(self, value: Tensor, step: int) -> None:
        """Remember the step if the value is the first that is not finite."""
        bad = ~value.detach().isfinite() & (self.first_bad < 0)
        self.first_bad = torch.where(bad, step, self.first_bad)

    def bad_step(self) -> int:
        """The first step with a value that was not finite, -1 where there was none; waits for the device."""
        return int(self.first_bad)

    def totals(self) -> dict[str, float]:
        """The sums since the last `reset`; waits for the device."""
        return {name: float(value) for name, value in self.values.items()}

    def reset(self) -> None:
        self.values = {}
