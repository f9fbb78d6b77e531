"""The training loop: one for teachers, independents and every method. It knows terms and weights, and no names of methods.

Every random decision of a step is keyed by (study seed, role, run seed, purpose, epoch or step), so a training that was stopped
anywhere goes on exactly as if it had not been.
"""

import json
import math
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from crossdistill.core.config import TrainingConfig
from crossdistill.core.errors import DivergedError, SettingError
from crossdistill.core.progress import Progress, Stopwatch
from crossdistill.core.records import EpochRow
from crossdistill.core.seeds import Part, bits, key, permutation, torch_seed
from crossdistill.core.store import write_text
from crossdistill.core.types import Activations, Batch, Clock, ImageSet
from crossdistill.observe import observe
from crossdistill.ops.memory import keep_freed_memory
from crossdistill.ops.network import Network
from crossdistill.ops.random import image_keys
from crossdistill.train.augment import Augmentation, mixed_up
from crossdistill.train.checkpoint import load_checkpoint, pack_optimizer, save_checkpoint, unpack_optimizer
from crossdistill.train.objective import Objective, labels_only, trainable
from crossdistill.train.precision import autocast, averaged, learning_rate, make_optimizer, resolved_precision

ENGINE = 2  # part of every training's key: raise it when a change of the loop or its parts changes bytes
CHECK_EVERY = 50  # steps between looks at a GPU's losses: each look waits for the device


class Training:
    """One training: `run()` goes from the newest checkpoint in `folder` to the end and returns the history.

    `who` is (study seed, role, run seed), from which every random decision is keyed; the method is absent, so that arms are
    paired by run seed. The teacher, where there is one, stays in eval mode and gets no gradient. It is shown the image `partners[i]`
    in place of image i where partners are given. `after_epoch(epochs done, network)` is called with the network as it would be kept.
    """

    def __init__(
        self, network: Network, train: ImageSet, validation: ImageSet, recipe: TrainingConfig, *, who: tuple[Part, ...], folder: Path,
        objective: Objective | None = None, teacher: Network | None = None, device: torch.device | None = None,
        partners: np.ndarray | None = None, after_epoch: Callable[[int, Network], None] | None = None,
        progress: Progress | None = None, description: str = "training",
    ) -> None:  # fmt: skip
        self.recipe, self.who, self.folder, self.description = recipe, who, folder, description
        self.device = device or torch.device("cpu")
        self.network, self.teacher = network, teacher
        self.average = averaged(network, recipe.ema)
        self.partners = None if partners is None else torch.from_numpy(partners).to(self.device)
        self.after_epoch = after_epoch
        self.objective = objective or Objective()
        self.progress = progress or Progress(quiet=True)
        self.precision = resolved_precision(recipe.precision, self.device)
        self.augment = Augmentation(recipe.views, study=who[:1], run=who[1:])
        self.train_set, self.validation = train, validation
        self.images = resident(train.images, self.device)
        self.labels = torch.from_numpy(np.asarray(train.labels)).to(self.device)
        self.batch_size = min(recipe.batch_size, len(train))
        self.steps_per_epoch = len(train) // self.batch_size  # the incomplete last batch is left out; the order changes each epoch
        self.clock = Clock(0, self.steps_per_epoch * recipe.epochs, 0, recipe.epochs)
        self.history: list[EpochRow] = []
        self.sums: dict[str, Tensor] = {}
        self.seconds = 0.0
        self.first_bad_step = torch.full((), -1, device=self.device)
        self.main = trainable(network.parameters()) + self.objective.auxiliary_parameters()
        self.adversarial = self.objective.adversary_parameters()
        self.optimizers = {"optimizer": make_optimizer(self.main, recipe)}
        if self.adversarial:
            self.optimizers["adversary_optimizer"] = make_optimizer(self.adversarial, recipe)

    def run(self) -> list[EpochRow]:
        """Train to the end. Ctrl-C saves the state and raises KeyboardInterrupt; a loss that is not finite raises DivergedError."""
        torch.set_num_threads(self.recipe.threads)
        keep_freed_memory()
        self._restore()
        with stop_requests() as stop_requested:
            while self.clock.step < self.clock.steps:
                self._epoch(stop_requested)
                if stop_requested.is_set():  # at an epoch's last step or during its validation: all is saved
                    raise KeyboardInterrupt
        if self.average is not None:
            self.network.load_state_dict(self.kept.state_dict())
        return self.history

    @property
    def kept(self) -> Network:
        """The network as it would be kept: with averaged weights where the recipe asks for them."""
        return self.network if self.average is None else cast(Network, self.average.module)

    def _epoch(self, stop_requested: threading.Event) -> None:
        epoch = self.clock.step // self.steps_per_epoch
        order = torch.from_numpy(permutation(len(self.train_set), *self.who, "order", epoch)).to(self.device)
        done = self.clock.step % self.steps_per_epoch
        label = f"{self.description}, epoch {epoch + 1}/{self.recipe.epochs}"
        with self.progress.bar(label, self.steps_per_epoch) as advance:
            advance(done, "")
            watch, seconds_before = Stopwatch(), self.seconds
            for position in range(done, self.steps_per_epoch):
                self.step(order[position * self.batch_size : (position + 1) * self.batch_size], epoch)
                self.seconds = seconds_before + watch.seconds
                advance(1, f"{(position + 1) * self.batch_size / self.seconds:,.0f} images/s")
                if stop_requested.is_set() and position + 1 < self.steps_per_epoch:  # else once the epoch is finished
                    self._stop()
        self._finish_epoch(epoch)

    def step(self, index: Tensor, epoch: int) -> None:
        """One optimiser step on the rows `index` of the training images."""
        self.network.train()
        self.objective.train_mode()
        rate = learning_rate(self.recipe, self.clock.step, self.clock.steps)
        for share, optimizer in zip((1.0, self.objective.adversary_rate), self.optimizers.values(), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = share * rate
        for micro, rows in enumerate(index.chunk(self.recipe.accumulate)):
            torch.manual_seed(torch_seed(*self.who, "forward", self.clock.step, micro))
            self._accumulate(self.batch(rows, epoch), share=len(rows) / len(index))
        for parameters, optimizer in zip((self.main, self.adversarial), self.optimizers.values(), strict=False):
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.recipe.clip_norm or math.inf)
            self._note_bad(norm)  # a finite loss may have an infinite gradient, which clipping turns into NaN
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.objective.after_step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        if self.device.type == "cpu" or self.clock.step % CHECK_EVERY == 0:
            self._refuse_bad_loss()
        self.clock = Clock(self.clock.step + 1, self.clock.steps, (self.clock.step + 1) // self.steps_per_epoch, self.clock.epochs)

    def batch(self, index: Tensor, epoch: int) -> Batch:
        """The rows `index`, augmented; mixup before the method's own views, so that the teacher sees what the student sees."""
        images, labels = self.augment(self.images, index, epoch), self.labels[index]
        taught = images if self.partners is None else self.augment(self.images, self.partners[index], epoch)
        targets = smoothed_targets(labels, self.network.n_classes, self.recipe.label_smoothing)
        if self.recipe.mixup:
            share = self._mixup_share()
            others = None if taught is images else mixed_up(taught, targets, share)[0]
            images, targets = mixed_up(images, targets, share)
            taught = images if others is None else others
        shared = torch.ones(len(images), dtype=torch.bool, device=self.device)
        if expand := self.objective.views:
            keys = image_keys(key(*self.who, "views", epoch), index)
            images, taught, shared = expand(images, keys) if taught is images else self._shown_apart(images, taught, keys)
        views, teacher_views = len(images) // len(index), len(taught) // len(index)
        return Batch(images, taught, labels, targets, index, shared, self.clock, views, teacher_views, self.autocast)

    def autocast(self) -> torch.autocast:
        """The context in which networks, and a method's own large layers, run at the recipe's precision."""
        return autocast(self.precision, self.device)

    def _shown_apart(self, images: Tensor, taught: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The method's views where the teacher is shown other images: the student's rows of the one, the teacher's of the other."""
        assert self.objective.views is not None
        student_rows, _, shared = self.objective.views(images, keys)
        return student_rows, self.objective.views(taught, keys)[1], shared

    def _mixup_share(self) -> float:
        """The share of each row's own image, at least a half: the Beta distribution is symmetric, so that only the roles change."""
        share = float(np.random.Generator(bits(*self.who, "mixup", self.clock.step)).beta(self.recipe.mixup, self.recipe.mixup))
        return max(share, 1 - share)

    def _accumulate(self, batch: Batch, share: float) -> None:
        if not self.objective.teaches(self.clock):
            return self._learn_from_labels(batch, share)
        with self.autocast():
            teacher = self._teacher_activations(batch)
            student = self.network(batch.images, taps=self.objective.needs.student_taps)
        terms = self.objective.function(batch, student, teacher)
        loss = self.objective.weighted(terms, self.clock)
        (share * loss).backward(inputs=self.main)
        if self.objective.adversary:
            adversarial = self.objective.adversary(batch, student, teacher)
            (share * torch.stack(list(adversarial.values())).sum()).backward(inputs=self.adversarial)
            terms = {**terms, **adversarial}
            loss = loss + sum(adversarial.values())  # only to be watched: a broken adversary breaks the run as well
        self._note(batch, student, {"loss": loss, **terms}, share)

    def _learn_from_labels(self, batch: Batch, share: float) -> None:
        with self.autocast():
            student = self.network(batch.images)
        terms = labels_only(batch, student, None)
        (share * terms["ce"]).backward(inputs=self.main)
        self._note(batch, student, {"loss": terms["ce"], **terms}, share)

    @torch.no_grad()
    def _teacher_activations(self, batch: Batch) -> Activations | None:
        if self.teacher is None:
            return None
        self.teacher.eval()
        return self.teacher(batch.teacher_images, taps=self.objective.needs.teacher_taps)

    @torch.no_grad()
    def _note(self, batch: Batch, student: Activations, values: dict[str, Tensor], share: float) -> None:
        """Add to the epoch's sums on the device; nothing here waits for it."""
        right = (student.logits[:: batch.views].argmax(dim=1) == batch.labels) & (batch.labels >= 0)
        counts = {"right": right.sum(), "labelled": (batch.labels >= 0).sum()}
        for name, value in {**{name: share * v.detach() for name, v in values.items()}, **counts}.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), dtype=torch.float64, device=self.device)) + value
        self._note_bad(values["loss"])

    def _note_bad(self, value: Tensor) -> None:
        bad = ~value.detach().isfinite() & (self.first_bad_step < 0)
        self.first_bad_step = torch.where(bad, self.clock.step, self.first_bad_step)

    def _refuse_bad_loss(self) -> None:
        step = int(self.first_bad_step)
        if step >= 0:
            checkpoint = self.folder / "checkpoint"
            kept = f"The last good state is kept in {checkpoint}. " if checkpoint.exists() else ""
            raise DivergedError(
                f"{self.description}: the loss or its gradient was not finite at step {step} "
                f"(epoch {step // self.steps_per_epoch + 1}). {kept}"
                "Lower `learning_rate`, set `clip_norm`, or use `precision: fp32`."
            )

    def _finish_epoch(self, epoch: int) -> None:
        self._refuse_bad_loss()
        answers = observe(self.kept, self.validation, device=self.device, split="validation")
        totals = {name: float(value) for name, value in self.sums.items()}
        right, labelled = totals.pop("right"), totals.pop("labelled")
        means = {name: value / self.steps_per_epoch for name, value in totals.items()}
        row = EpochRow(
            epoch=epoch + 1,
            learning_rate=learning_rate(self.recipe, self.clock.step - 1, self.clock.steps),
            loss=means.pop("loss"),
            terms=means,
            train_accuracy=right / labelled if labelled else None,
            validation_accuracy=float((answers.decisions == answers.labels).mean()),
            seconds=self.seconds,
            images_per_second=self.steps_per_epoch * self.batch_size / self.seconds,
        )
        self.history.append(row)
        self.sums, self.seconds = {}, 0.0
        self.progress.line(
            f"  {self.description}: epoch {row.epoch}/{self.recipe.epochs}, loss {row.loss:.3f}, "
            f"validation {100 * row.validation_accuracy:.1f} %, {row.images_per_second:,.0f} images/s"
        )
        if self.after_epoch:
            self.after_epoch(row.epoch, self.kept)
        self._save()
        write_text(self.folder / "log.jsonl", "".join(json.dumps(row.model_dump()) + "\n" for row in self.history))

    def _stop(self) -> None:
        self._refuse_bad_loss()
        self._save()
        raise KeyboardInterrupt

    def _save(self) -> None:
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        if self.objective.module is not None:
            tensors |= {f"objective.{name}": value for name, value in self.objective.module.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            tensors |= pack_optimizer(name, optimizer)
        tensors |= {f"sums.{name}": value for name, value in self.sums.items()}
        state = {"history": [row.model_dump() for row in self.history], "seconds": self.seconds}
        save_checkpoint(self.folder / "checkpoint", self.clock.step, tensors, state)

    def _restore(self) -> None:
        checkpoint = load_checkpoint(self.folder / "checkpoint")
        if checkpoint is None:
            return
        for name in checkpoint.skipped:
            self.progress.line(f"  {self.description}: checkpoint {name} is damaged, going on from the one before")
        step = checkpoint.state["step"]
        self.clock = Clock(step, self.clock.steps, step // self.steps_per_epoch, self.clock.epochs)
        self.history = [EpochRow.model_validate(row) for row in checkpoint.state["history"]]
        self.seconds = checkpoint.state["seconds"]
        tensors = {name: value.to(self.device) for name, value in checkpoint.tensors.items()}
        self.network.load_state_dict(_under("network.", tensors))
        if self.objective.module is not None:
            self.objective.module.load_state_dict(_under("objective.", tensors))
        if self.average is not None:
            self.average.load_state_dict(_under("average.", tensors))
        for name, optimizer in self.optimizers.items():
            unpack_optimizer(name, optimizer, tensors)
        self.sums = _under("sums.", tensors)
        self.progress.line(f"  {self.description}: going on from step {step} of {self.clock.steps}")


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def resident(images: np.ndarray, device: torch.device) -> Tensor:
    """The uint8 images as a tensor on the device; on a CPU without a copy, also where they are memory-mapped read-only."""
    with warnings.catch_warnings():
        # torch warns that writing to a read-only array would be undefined; nothing here writes to images.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(images).to(device)


def smoothed_targets(labels: Tensor, n_classes: int, smoothing: float) -> Tensor:
    """Target distributions [batch, classes]: one-hot, smoothed towards uniform; all zero where the label is -1."""
    one_hot = torch.nn.functional.one_hot(labels.clamp(min=0), n_classes).float()
    return ((1 - smoothing) * one_hot + smoothing / n_classes) * (labels >= 0)[:, None]


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that a step is finished before the state is saved. A second signal stops at once."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return

    def request(number: int, frame: FrameType | None) -> None:
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def refuse_class_mismatch(student: Network, teacher: Network) -> None:
    """Raise SettingError where teacher and student do not tell the same number of classes apart."""
    if student.n_classes != teacher.n_classes:
        raise SettingError(
            f"the teacher was trained on {teacher.n_classes} classes, the student has {student.n_classes}: pick one image source for both"
        )
