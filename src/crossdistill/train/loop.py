"""The training loop: one for teachers, independents and every method. It knows terms and weights, and no names of methods.

Every random decision of a step is keyed by (study seed, role, run seed, purpose, epoch or step), so a training that was stopped
anywhere goes on exactly as if it had not been. Where several processes share each batch, all run this loop side by side, and
rank 0 writes what is kept.
"""

import json
import math
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from crossdistill.core.errors import StudyError
from crossdistill.core.progress import Progress, Stopwatch
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.records import EpochRow
from crossdistill.core.seeds import Part, torch_seed
from crossdistill.core.store import write_text
from crossdistill.core.types import Activations, Batch, Clock, ImageSet
from crossdistill.observe import observe
from crossdistill.ops.memory import keep_freed_memory
from crossdistill.ops.network import Network
from crossdistill.ops.parallel import (
    agreed,
    average_gradients,
    batch_norm_statistics,
    from_first,
    refuse_other_world,
    refuse_uneven,
    synchronise_batch_norm,
    world,
)
from crossdistill.train.batches import Batches
from crossdistill.train.checkpoint import Due
from crossdistill.train.compiling import CompiledStudent
from crossdistill.train.early_stopping import BestWeights
from crossdistill.train.expense import TeacherShare
from crossdistill.train.freezing import freeze
from crossdistill.train.memory import batch_advice, enough_memory
from crossdistill.train.objective import Objective, trainable
from crossdistill.train.optimizers import averaged, learning_rate, make_optimizer, settled
from crossdistill.train.precision import autocast, resolved_precision, settle_kernels
from crossdistill.train.signals import StopRequest, stop_requests
from crossdistill.train.state import identity, restore_state, save_state
from crossdistill.train.sums import EpochSums
from crossdistill.train.teacher import LiveTeacher

ENGINE = 3  # part of every training's key: raise it when a change of the loop or its parts changes bytes
BROKEN_OFF = -1.0  # in place of a validation accuracy
LABELS_ONLY = Objective()
CHECK_EVERY = 50  # steps between looks at a GPU's losses: each look waits for the device


class Training:
    """One training: `run()` goes from the newest checkpoint in `folder` to the end and returns the history.

    `who` is (study seed, role, run seed), from which every random decision is keyed; the method is absent, so that arms are
    paired by run seed. The teacher, where there is one, stays in eval mode and gets no gradient; `answers` gives its activations
    for a batch where they are not to be asked of it afresh. It is shown the image `partners[i]` in place of image i where partners
    are given. `after_epoch(epochs done, network)` is called with the network as that epoch leaves it.
    """

    def __init__(
        self, network: Network, train: ImageSet, validation: ImageSet, recipe: TrainingConfig, *, who: tuple[Part, ...], folder: Path,
        objective: Objective | None = None, teacher: Network | None = None, device: torch.device | None = None,
        answers: Callable[[Batch], Activations] | None = None, partners: np.ndarray | None = None,
        after_epoch: Callable[[int, Network], None] | None = None, progress: Progress | None = None, description: str = "training",
    ) -> None:  # fmt: skip
        self.recipe, self.who, self.folder, self.description = settled(recipe, network.family), who, folder, description
        self.device = device or torch.device("cpu")
        settle_kernels(self.device)
        self.network, self.teacher = network, teacher
        self.objective = objective or Objective()
        modules = [network, *([self.objective.module] if self.objective.module else [])]
        for module in modules:
            synchronise_batch_norm(module, self.device)
        self.frozen = freeze(network, recipe)
        self.batch_norm = batch_norm_statistics(network, self.device)
        self.average = averaged(network, recipe.ema)
        self.best = BestWeights(recipe.early_stopping)
        self.after_epoch = after_epoch
        self.answers = answers or (LiveTeacher(teacher, self.objective.needs.teacher_taps, recipe.cache_dtype) if teacher else None)
        self.progress = progress or Progress(quiet=True)
        self.precision = resolved_precision(recipe.precision, self.device)
        self.student: Callable[..., Activations] = CompiledStudent(network, tell=self._tell) if recipe.compile else network
        self.train_set, self.validation = train, validation
        self.batches = Batches(
            train, recipe, who=who, device=self.device, views=self.objective.views, partners=partners,
            autocast=partial(autocast, self.precision, self.device),  # and not our own: that would keep us until the collector comes
        )  # fmt: skip
        self.batch_size = min(recipe.batch_size, len(train))
        refuse_other_world(recipe.devices)
        refuse_uneven(self.batch_size, recipe.accumulate, recipe.devices)
        self.steps_per_epoch = len(train) // self.batch_size  # the incomplete last batch is left out; the order changes each epoch
        self.clock = Clock(0, self.steps_per_epoch * recipe.epochs, 0, recipe.epochs)
        self.history: list[EpochRow] = []
        self.sums = EpochSums(self.device)
        self.seconds = 0.0
        self.due = Due(recipe.checkpoint_every)
        self.teacher_share = TeacherShare(self.device)
        self.main = trainable(network.parameters()) + self.objective.auxiliary_parameters()
        self.adversarial = self.objective.adversary_parameters()
        self.optimizers = {"optimizer": make_optimizer(self.main, recipe, modules=modules)}
        if self.adversarial:
            self.optimizers["adversary_optimizer"] = make_optimizer(self.adversarial, recipe, modules=modules)

    def run(self) -> list[EpochRow]:
        """Train to the end. Ctrl-C and SIGTERM save the state and raise KeyboardInterrupt.

        Raises DivergedError for a loss that is not finite, SettingError for a batch that does not fit into memory, and StudyError
        where the checkpoints are another training's, all damaged, or cannot be written.
        """
        torch.set_num_threads(self.recipe.threads)
        keep_freed_memory()
        agreed(False)  # no rank reads while the first still writes the last checkpoint of a training that was stopped
        restore_state(self)
        if agreed(from_first(self.clock.step) != self.clock.step):
            raise StudyError(f"{self.description}: not all processes find the same checkpoint in {self.folder}: let them share that folder")
        with stop_requests() as stop_requested:
            while len(self.history) < self.recipe.epochs and not self.best.stops(self.history):
                self._epoch(stop_requested)
                if agreed(stop_requested.is_set()):  # while the epoch was finished: all is saved
                    raise KeyboardInterrupt
        self.network.load_state_dict(self.best.weights or self.kept.state_dict())
        return self.history

    @cached_property
    def belongs_to(self) -> dict[str, Any]:
        """What this training's checkpoints belong to; first asked for before one is read."""
        return identity(self)

    @property
    def kept(self) -> Network:
        """The network as it stands: with averaged weights where the recipe asks for them."""
        return self.network if self.average is None else cast(Network, self.average.module)

    @property
    def evaluated_weights(self) -> str:
        """Which weights a finished training leaves, in words."""
        return self.best.words(self.history, averaged=self.average is not None)

    def _epoch(self, stop_requested: StopRequest) -> None:
        """Train an epoch and finish it: a whole one, or what was left of it when its training was stopped."""
        epoch = len(self.history)
        order = self.batches.order(epoch)
        done = self.clock.step - epoch * self.steps_per_epoch  # all steps where it was stopped before it was validated
        label = f"{self.description}, epoch {epoch + 1}/{self.recipe.epochs}"
        with self.progress.bar(label, self.steps_per_epoch) as advance:
            advance(done, "")
            watch, seconds_before = Stopwatch(), self.seconds
            for position in range(done, self.steps_per_epoch):
                with enough_memory(self._memory_advice), self.teacher_share.step(position):
                    self.step(order[position * self.batch_size : (position + 1) * self.batch_size], epoch)
                self.seconds = max(self.seconds, seconds_before + watch.seconds)
                advance(1, f"{self._images_per_second(position + 1):,.0f} images/s")
                stop, in_between = stop_requested.is_set(), position + 1 < self.steps_per_epoch  # else saved once the epoch is finished
                if agreed(stop or (in_between and self.due(self.clock.step))):
                    self._save_in_between(stop=agreed(stop))
        self._finish_epoch(epoch, stop_requested)

    def _images_per_second(self, steps: int) -> float:
        """Over that many steps of this epoch; 0 where the clock tells no time."""
        return steps * self.batch_size / self.seconds if self.seconds > 0 else 0.0

    def _memory_advice(self) -> str:
        return f"{self.description}: {batch_advice(self.recipe, self.batch_size, self.train_set.size)}"

    def _save_in_between(self, *, stop: bool) -> None:
        """Save the state in the middle of an epoch, since it is time, or a stop was requested."""
        self._refuse_bad_loss()
        self._save()
        if stop:
            raise KeyboardInterrupt

    def step(self, index: Tensor, epoch: int) -> None:
        """One optimiser step on the rows `index` of the training images."""
        self.network.train()
        self.objective.train_mode()
        for module in self.frozen:
            module.training = False
        rate = learning_rate(self.recipe, self.clock.step, self.clock.steps)
        for share, optimizer in zip((1.0, self.objective.adversary_rate), self.optimizers.values(), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = share * rate
        for micro, rows in enumerate(index.chunk(self.recipe.accumulate)):
            self._accumulate(self.batch(rows, epoch), share=len(rows) / len(index), micro=micro)
        average_gradients([*self.main, *self.adversarial])
        for parameters, optimizer in zip((self.main, self.adversarial), self.optimizers.values(), strict=False):
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.recipe.clip_norm or math.inf)
            self.sums.note_bad(norm, self.clock.step)  # a finite loss may have an infinite gradient, which clipping turns into NaN
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.objective.after_step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        if self.device.type == "cpu" or self.clock.step % CHECK_EVERY == 0:
            self._refuse_bad_loss()
        self.clock = Clock(self.clock.step + 1, self.clock.steps, (self.clock.step + 1) // self.steps_per_epoch, self.clock.epochs)

    def batch(self, index: Tensor, epoch: int) -> Batch:
        """This process's share of the rows `index`, as an epoch shows them."""
        return self.batches(index, epoch, self.clock)

    def autocast(self) -> torch.autocast:
        """The context in which networks, and a method's own large layers, run at the recipe's precision."""
        return autocast(self.precision, self.device)

    def _accumulate(self, batch: Batch, share: float, micro: int = 0) -> None:
        """Add a micro-batch's gradients. Dropout differs between ranks; what the objective draws is drawn by all ranks alike."""
        here = (world().rank,) if world().rank else ()
        torch.manual_seed(torch_seed(*self.who, "forward", self.clock.step, micro, *here))
        objective = self.objective if self.objective.teaches(self.clock) else LABELS_ONLY
        with self.autocast():
            with self.teacher_share.answering():
                teacher = self.answers(batch) if self.answers and objective is self.objective else None
            student = self.student(batch.images, taps=objective.needs.student_taps)
        torch.manual_seed(torch_seed(*self.who, "objective", self.clock.step, micro))
        terms = objective.function(batch, student, teacher)
        loss = objective.weighted(terms, self.clock)
        (share * loss).backward(inputs=self.main)
        if objective.adversary:
            adversarial = objective.adversary(batch, student, teacher)
            (share * torch.stack(list(adversarial.values())).sum()).backward(inputs=self.adversarial)
            terms = {**terms, **adversarial}
            loss = loss + sum(adversarial.values())  # only to be watched: a broken adversary breaks the run as well
        self.sums.note(batch, student, {"loss": loss, **terms}, share)

    def _tell(self, sentence: str) -> None:
        """What a reader of the run and of its record should know."""
        self.progress.line(f"  {self.description}: {sentence}")
        self.network.notes.append(sentence)

    def _refuse_bad_loss(self) -> None:
        self.sums.refuse_bad(self.description, self.steps_per_epoch, self.folder / "checkpoint")

    def _finish_epoch(self, epoch: int, stop_requested: StopRequest) -> None:
        self._refuse_bad_loss()
        validation_accuracy = self._validation_accuracy(stop_requested)
        means, train_accuracy = self.sums.means(self.steps_per_epoch)
        row = EpochRow(
            epoch=epoch + 1,
            learning_rate=learning_rate(self.recipe, self.clock.step - 1, self.clock.steps),
            loss=means.pop("loss"),
            terms=means,
            train_accuracy=train_accuracy,
            validation_accuracy=validation_accuracy,
            seconds=self.seconds,
            images_per_second=self._images_per_second(self.steps_per_epoch),
        )
        self.history.append(row)
        self.best.note(self.history, self.kept)
        self.sums.reset()
        self.seconds = 0.0
        self.progress.line(
            f"  {self.description}: epoch {row.epoch}/{self.recipe.epochs}, loss {row.loss:.3f}, "
            f"validation {100 * row.validation_accuracy:.1f} %, {row.images_per_second:,.0f} images/s"
        )
        if self.best.stops(self.history):
            self.progress.line(f"  {self.description}: stops early and keeps {self.evaluated_weights}")
        if self.after_epoch and world().rank == 0:
            self.after_epoch(row.epoch, self.kept)
        if world().rank == 0:  # before the state is saved: from there on no epoch is logged again
            write_text(self.folder / "log.jsonl", "".join(json.dumps(row.model_dump()) + "\n" for row in self.history))
        self._save()

    def _validation_accuracy(self, stop_requested: StopRequest) -> float:
        """Of rank 0's network: buffers such as BatchNorm's statistics may differ between ranks.

        It is broken off where a stop is requested of rank 0, since it may take long; the state is saved.
        """
        accuracy = BROKEN_OFF
        if world().rank == 0:
            with suppress(KeyboardInterrupt), stop_requested.at_once():
                answers = observe(self.kept, self.validation, device=self.device, split="validation")
                accuracy = float((answers.decisions == answers.labels)[answers.labels >= 0].mean())
        if (accuracy := from_first(accuracy)) == BROKEN_OFF:
            self._save()
            raise KeyboardInterrupt
        return accuracy

    def _save(self) -> None:
        self.due.reset(self.clock.step)
        if world().rank == 0:
            save_state(self)
