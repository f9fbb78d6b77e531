"""The seconds that each task of a study will take, and what tells so: earlier measurements, else a trial, made once for each kind."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from crossdistill.core.store import digest
from crossdistill.study import pass_trials, timings, trials
from crossdistill.study.encoders import encoder_visits
from crossdistill.study.graph import FOUND, Node
from crossdistill.study.instruments import instrument_files
from crossdistill.study.matching import teaching_epoch
from crossdistill.study.plan import Plan, Training, WarmUpTask
from crossdistill.study.probes import study_recipe
from crossdistill.study.tasks import PROFILE_IMAGES
from crossdistill.study.trials import Trial
from crossdistill.study.workshop import Workshop

BEFORE, COPY, CHECKPOINT, TOGETHER, UNKNOWN = "measured before", "copied", "finished checkpoint", "with the tables", "not known yet"
MAY_BE_A_COPY = "a copy of the method's own student where teacher and control teacher end within 3 points of each other"

Cost = tuple[float | None, str]  # seconds, and where they come from


@dataclass
class Estimator:
    """Estimates the tasks of one study; a trial is made once for all tasks of its kind."""

    shop: Workshop
    plan: Plan
    speeds: dict[str, tuple[dict[str, float] | None, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trainings = {training.run: training for training in (*self.plan.trainings, *self.plan.ceilings)}
        self.warm_ups = {task.key: task for task in self.plan.warm_ups}
        found = {label: answers for label, answers in self.shop.answers.items() if answers.cached}
        self.readers = {found[t.label].group: t for t in self.plan.students if t.label in found}

    def estimated(self, node: Node) -> Node:
        """The node with its cost; what is done, or found in the store, costs nothing."""
        if node.state in FOUND:
            return replace(node, seconds=0.0)
        training = self.trainings.get(node.run)
        if training and training.control == "matched_teacher":
            copied = self._is_copied(training)
            if copied:
                return replace(node, seconds=0.0, basis=COPY)
            if copied is None:
                node = replace(node, state="only if needed", note=MAY_BE_A_COPY)
        seconds, basis = self._cost(node, training)
        return replace(node, seconds=None if seconds is None else round(seconds, 2), basis=basis)

    def _cost(self, node: Node, training: Training | None) -> Cost:
        if training:
            return self._of_run(node, training)
        if node.kind == "warm_up":
            return self.warm_up(self.warm_ups[node.key])
        if node.kind == "answers":
            return self.stored_answers(self.readers[node.key])
        return {
            "probe": self._probe,
            "encoder": self._encoder,
            "metric": lambda _: (0.0, TOGETHER),
            "tables": self._tables,
            "page": self._page,
        }[node.kind](node)

    def _of_run(self, node: Node, training: Training) -> Cost:
        if node.kind == "observation":
            return self.observation(training, self.shop.images_shown[node.label.partition(" by ")[0]])
        if node.kind == "instruments":
            return self._instruments(training)
        return (0.0, TOGETHER) if node.kind == "predictions" else self.training(training)

    def training(self, training: Training) -> Cost:
        """A training with its validations and checkpoints, the teacher's answers included where they are not read from a store."""
        shop, epochs = self.shop, self.epochs(training)
        if not epochs:
            return 0.0, CHECKPOINT
        answers = shop.answers.get(training.label)
        cached = bool(answers and answers.cached)
        facts = timings.training_facts(shop, training, cached=cached)
        speed, basis = self._speed(training.subject, facts, lambda: trials.training_trial(shop, training, cached=cached))
        seconds = self._in_epochs(speed, epochs, training.recipe.batch_size)
        if seconds is None or training.arm != "teacher":
            return seconds, basis
        profiled, _ = self.observation(training, min(PROFILE_IMAGES, len(shop.splits.train)))
        return seconds + (profiled or 0.0), basis

    def epochs(self, training: Training) -> int:
        """How many epochs are trained: none of a finished checkpoint."""
        return training.recipe.epochs if self.plan.config.networks[training.network].checkpoint is None else 0

    def warm_up(self, task: WarmUpTask) -> Cost:
        facts = timings.warm_up_facts(self.shop, task)
        speed, basis = self._speed(task.label, facts, lambda: trials.warm_up_trial(self.shop, task))
        return self._in_epochs(speed, task.recipe.epochs, task.recipe.batch_size), basis

    def _in_epochs(self, speed: dict[str, float] | None, epochs: int, batch_size: int) -> float | None:
        """The seconds of a training: its steps, what stands between its epochs, and a last validation."""
        if speed is None:
            return None
        splits = self.shop.splits
        between = speed.get("between_epochs", 0.0) * len(splits.validation) / max(1.0, speed.get("validation_images", 1.0))
        batch = min(batch_size, len(splits.train))
        whole = len(splits.train) // batch * batch  # without the last, smaller batch
        return epochs * whole / speed["images_per_second"] + (epochs + 1) * between

    def stored_answers(self, training: Training) -> Cost:
        """Storing the teacher's answers that a training reads, once for all that share them."""
        answers = self.shop.answers[training.label]
        speed, basis = self.answering(training)
        views, images = answers.views or 0, len(self.shop.splits.train)
        return (views * images / speed if speed else None), basis

    def answering(self, training: Training) -> tuple[float | None, str]:
        """How many views of images a second a training's teacher answers: as fast as it is observed, where they are no list."""
        if self.shop.answers[training.label].views is None and training.teacher:
            seconds, basis = self.observation(training.teacher, 1)
            return (1 / seconds if seconds else None), basis
        taps = self.shop.answers[training.label].taps
        facts = timings.answer_facts(self.shop, training, taps)
        about = f"teacher of {training.subject}"
        speed, basis = self._speed(about, facts, lambda: pass_trials.answer_trial(self.shop, training, taps))
        return (speed["rows_per_second"] if speed else None), basis

    def observation(self, training: Training, count: int) -> Cost:
        """Showing a network that many images."""
        network, threads = training.network, training.recipe.threads
        facts = timings.observation_facts(self.shop, network, threads)
        speed, basis = self._speed(f"observing {network}", facts, lambda: pass_trials.observation_trial(self.shop, network, threads))
        return (count / speed["images_per_second"] if speed else None), basis

    def _instruments(self, training: Training) -> Cost:
        network, threads = training.network, training.recipe.threads
        names = list(instrument_files(self.shop.config, self.shop.splits.test))
        facts = timings.instrument_facts(self.shop, network, threads, names)
        about = f"instruments on {network}"
        speed, basis = self._speed(about, facts, lambda: pass_trials.instrument_trial(self.shop, network, threads, names))
        return (speed["seconds"] if speed else None), basis

    def _probe(self, node: Node) -> Cost:
        shop, test = self.shop, self.shop.splits.test
        probe = next(chosen for chosen in shop.config.chosen_probes if chosen.name == node.label)
        facts = timings.probe_facts(probe, study_recipe(probe, shop.config, test.size), test.size, shop.device)
        speed, basis = self._speed(f"probe {node.label}", facts, lambda: pass_trials.probe_trial(shop, probe))
        return (speed["seconds_per_image"] * len(test) if speed else None), basis

    def _encoder(self, node: Node) -> Cost:
        train = self.shop.splits.train
        facts = timings.encoder_facts(train.size, train.n_classes, self.shop.device)
        speed, basis = self._speed(node.label, facts, lambda: trials.encoder_trial(self.shop))
        return (encoder_visits(self.shop.splits) / speed["images_per_second"] if speed else None), basis

    def _tables(self, node: Node) -> Cost:
        speed, basis = self._speed(node.label, timings.writing_facts("tables"))
        answers = len(self.plan.trainings) * sum(self.shop.images_shown.values())
        return (speed["seconds_per_image"] * answers if speed else None), basis

    def _page(self, node: Node) -> Cost:
        speed, basis = self._speed(node.label, timings.writing_facts("page"))
        return (speed["seconds"] if speed else None), basis

    def _speed(
        self, about: str, facts: timings.Facts, trial: Callable[[], Trial | None] | None = None
    ) -> tuple[dict[str, float] | None, str]:  # fmt: skip
        key = digest(facts)
        if key not in self.speeds:
            if measured := timings.known(self.shop.store, facts):
                self.speeds[key] = measured, BEFORE
            else:
                tried = self._tried(about, trial)
                self.speeds[key] = (tried.measured, f"trial: {tried.words}") if tried else (None, UNKNOWN)
        return self.speeds[key]

    def _tried(self, about: str, trial: Callable[[], Trial | None] | None) -> Trial | None:
        if trial is None:
            return None
        self.shop.progress.line(f"trying {about}")
        threads = torch.get_num_threads()
        try:
            return trial()
        finally:
            torch.set_num_threads(threads)

    def _is_copied(self, training: Training) -> bool | None:
        """Whether a matched teacher's student is a mere copy; None while its teachers are not trained."""
        if not all(teacher and self.shop.finished(teacher) for teacher in (training.teacher, training.rival)):
            return None
        return teaching_epoch(self.shop, training)[0] is None
