"""Study file -> plan: every task with its content-addressed key (see `keys`), before anything is trained.

Adding a probe, a seed or a method adds only its tasks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from crossdistill.core import registry
from crossdistill.core.config import NOT_METHODS, PairConfig, StudyConfig
from crossdistill.core.errors import SettingError
from crossdistill.core.method_config import MethodConfig
from crossdistill.core.recipe import SHORTER, TrainingConfig, shortened
from crossdistill.core.records import subject
from crossdistill.core.store import digest
from crossdistill.core.types import WarmUp
from crossdistill.study.keys import KeyMaker, checkpoint_hash
from crossdistill.train.loop import ENGINE

OWN_TRAINING = {"ema": None, "devices": 1, "freeze": None, "early_stopping": None}
"""What a warm-up does not take from its teacher's recipe: it trains another module, on a network whose accuracy does not change."""


@dataclass(frozen=True)
class Training:
    """One network to be trained: a teacher, an independent, a student of a method, a control of one, or a probe's ceiling."""

    arm: str  # as in a RunRecord: "teacher", one of the independents, the method's label, LABEL+CONTROL, or "ceiling"
    network: str  # name in the study file
    seed: int
    recipe: TrainingConfig
    key: str
    method: MethodConfig | None = None
    control: str | None = None  # "twin", "shuffled_teacher", "control_teacher" or "matched_teacher"
    teacher: "Training | None" = None
    rival: "Training | None" = None  # the teacher of the other family, with which the teacher is matched in accuracy
    own: "Training | None" = None  # of a control: the method's own student of that seed
    probe: str | None = None  # of a ceiling: the probe on whose images it is trained
    level: str | None = None  # of a ceiling: the one level at which; None: at all of them
    checkpoint: str | None = None  # of a finished network: the SHA-256 of its file when the study was planned

    @property
    def run(self) -> str:
        """The folder's name under runs/."""
        return f"{self.arm}-{self.key}"

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.subject}, seed {self.seed}"

    @property
    def subject(self) -> str:
        """What the runs of all seeds have in common, for people."""
        if self.probe:
            return f"{self.arm}: {self.probe}{f' at {self.level}' if self.level else ''}: {self.network}"
        return subject(self.arm, self.teacher.network, self.network) if self.teacher else f"{self.arm}: {self.network}"

    @property
    def taught_by(self) -> str | None:
        """The teacher's name in the study file."""
        return self.teacher.network if self.teacher else None

    @property
    def warm_up(self) -> "WarmUpTask | None":
        """What its method trains on its teacher first; of a teacher that is matched with another, on the weights it ended with."""
        return warm_up_of(self.method, self.teacher)

    @property
    def role(self) -> str:
        """The role from which randomness is keyed: the method is absent, so that arms are paired by run seed."""
        return self.arm if self.arm in ("teacher", "second_independent") else "student"


@dataclass(frozen=True)
class WarmUpTask:
    """What a method trains on a teacher before any student of it: one module, shared by all of them."""

    method: str
    settings: Mapping[str, Any]
    teacher: Training
    recipe: TrainingConfig
    key: str

    @property
    def run(self) -> str:
        """The folder's name in the store, under warm_ups/."""
        return f"{self.method}-{self.key}"

    @property
    def label(self) -> str:
        """For people."""
        return f"warm-up of {self.method}: {self.teacher.network}, seed {self.teacher.seed}"


@dataclass(frozen=True)
class Plan:
    """Everything a study will do, in an order in which it can be done: teachers, independents, students."""

    config: StudyConfig
    trainings: tuple[Training, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)  # control arms that a method refuses, with its sentence
    ceilings: tuple[Training, ...] = ()  # run only for probes that no network of the study passes
    no_ceilings: Mapping[str, str] = field(default_factory=dict)  # probes for which none can be trained, with the reason
    no_control: Mapping[str, str] = field(default_factory=dict)  # methods (as subjects) that no control teacher can teach, likewise

    @property
    def teachers(self) -> tuple[Training, ...]:
        return tuple(training for training in self.trainings if training.arm == "teacher")

    @property
    def students(self) -> tuple[Training, ...]:
        return tuple(training for training in self.trainings if training.arm != "teacher")

    @property
    def one_teacher_checkpoint(self) -> bool:
        """Whether every student of a pair has the same teacher weights: then nothing is known of other teachers."""
        return len(self.config.seeds) > 1 and all(len(self.config.teacher_seeds(pair.teacher)) == 1 for pair in self.config.pairs)

    @property
    def keeps_epochs(self) -> frozenset[str]:
        """The keys of the teachers that are matched with another, and may have to teach with an earlier epoch's weights."""
        return frozenset(student.teacher.key for student in self.students if student.teacher and student.rival)

    @property
    def warm_ups(self) -> tuple[WarmUpTask, ...]:
        # Whether a teacher that is matched with another needs one of its own is known only once both are trained.
        found = (student.warm_up for student in self.students if not student.rival)
        return tuple({warm_up.key: warm_up for warm_up in found if warm_up}.values())

    def epochs(self, training: Training) -> int:
        """How many a training has; none where its network is finished already."""
        return 0 if self.config.networks[training.network].checkpoint else training.recipe.epochs

    def without(self, refused: Mapping[str, str]) -> "Plan":
        """The plan without these students, {subject: reason}, and without teachers that then teach nobody."""
        students = [training for training in self.students if training.subject not in refused]
        needed = {teacher.label for student in students for teacher in (student.teacher, student.rival) if teacher}
        kept = tuple(t for t in self.trainings if (t.label in needed if t.arm == "teacher" else t.subject not in refused))
        return replace(self, trainings=kept, left_out=refused)


def make_plan(config: StudyConfig, images_fingerprint: str, device: torch.device) -> Plan:
    """The plan of a study on images of that fingerprint, with `precision: auto` as that device resolves it.

    Nothing is built, decoded or trained. Raises SettingError where two trainings of different content would have one name.
    """
    trainings: dict[str, Training] = {}
    for training in _Planner(config, KeyMaker(config, images_fingerprint, device)).trainings():
        known = trainings.setdefault(training.label, training)  # pairs share teachers, independents and twins
        if known.key != training.key:
            raise SettingError(f"two different trainings would both be called '{training.label}': give one of the methods another `label`")
    order = {arm: place for place, arm in enumerate(NOT_METHODS)}
    return Plan(config, tuple(sorted(trainings.values(), key=lambda training: order.get(training.arm, len(order)))))


def warm_up_of(method: MethodConfig | None, teacher: Training | None, epoch: int | None = None) -> WarmUpTask | None:
    """The warm-up that a method asks for on this teacher (as it was after an epoch), or None."""
    plugin = registry.get("method", method.name) if method else None
    warm_up: WarmUp | None = plugin.facts["warm_up"] if plugin else None
    if plugin is None or warm_up is None or method is None or teacher is None:
        return None
    complete = plugin.complete(method.settings)
    settings = {name: complete[name] for name in warm_up.settings}
    recipe = teacher.recipe.model_dump(exclude_unset=True) | OWN_TRAINING | dict(warm_up.recipe(settings))
    checked = TrainingConfig.model_validate(recipe)
    key = digest({
        "engine": ENGINE,
        "method": [plugin.name, plugin.identity, {name: str(value) for name, value in settings.items()}],
        "recipe": checked.identity(),
        "teacher": teacher.key,
        "epoch": epoch,
    })  # fmt: skip
    return WarmUpTask(plugin.name, settings, teacher, checked, key)


@dataclass(frozen=True)
class _Planner:
    config: StudyConfig
    keys: KeyMaker

    def trainings(self) -> Iterator[Training]:
        for pair in self.config.pairs:
            teachers, rivals = self._teachers(pair.teacher), self._rivals(pair)
            yield from teachers.values()
            yield from rivals.values()
            for seed in self.config.seeds:
                yield from (self._training(arm, pair.student, seed) for arm in self._without_teacher())
                teacher = teachers[self.config.teacher_seed_for(pair.teacher, seed)]
                rival = rivals[self.config.teacher_seed_for(pair.control_teacher, seed)] if pair.control_teacher and rivals else None
                for method in pair.methods:
                    yield from self._taught(pair.student, seed, method, teacher, rival)

    def _without_teacher(self) -> Iterator[str]:
        """The arms of a student network that nobody teaches."""
        for arm in self.config.arms:
            if arm == "shorter_independents":
                yield from SHORTER
            elif arm in NOT_METHODS:
                yield arm

    def _teachers(self, network: str) -> dict[int, Training]:
        return {seed: self._training("teacher", network, seed) for seed in self.config.teacher_seeds(network)}

    def _rivals(self, pair: PairConfig) -> dict[int, Training]:
        return self._teachers(pair.control_teacher) if pair.control_teacher and "control_teacher" in self.config.arms else {}

    def _taught(self, student: str, seed: int, method: MethodConfig, teacher: Training, rival: Training | None) -> Iterator[Training]:
        """A method's student, and the controls of it that are wanted and make sense."""
        wanted = self.config.arms
        own = self._training(method.arm, student, seed, method, teacher=teacher)
        yield own
        if "shuffled_teacher" in wanted:
            yield self._control("shuffled_teacher", own, teacher)
        if rival:
            yield self._control("control_teacher", own, rival, teacher)
            yield self._control("matched_teacher", own, teacher, rival)
        if "twin" in wanted and method.changes_student:  # for the others the independent is the twin
            yield self._control("twin", own)

    def _control(self, control: str, own: Training, teacher: Training | None = None, rival: Training | None = None) -> Training:
        made = self._training(f"{own.arm}+{control}", own.network, own.seed, own.method, control, teacher, rival)
        return replace(made, own=own)

    def _training(
        self, arm: str, network: str, seed: int, method: MethodConfig | None = None, control: str | None = None,
        teacher: Training | None = None, rival: Training | None = None,
    ) -> Training:  # fmt: skip
        recipe = self.keys.recipe(network, teacher=arm == "teacher", taught=teacher is not None)
        recipe = shortened(recipe, arm) if arm in SHORTER else recipe
        warm_up = warm_up_of(method, teacher)
        read = {"teacher": teacher, "rival": rival, "warm_up": warm_up}
        reads = {name: task.key for name, task in read.items() if task}
        checkpoint = checkpoint_hash(self.config.networks[network].checkpoint)
        key = self.keys.key(arm, network, seed, recipe, method=method, control=control, reads=reads, checkpoint=checkpoint)
        return Training(arm, network, seed, recipe, key, method, control, teacher, rival, checkpoint=checkpoint)
