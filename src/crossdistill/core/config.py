"""The study file as frozen models: whatever would change a number in the report, and nothing else.

What only one model can know is checked in it; what only plug-ins know is checked where the file is read (core/study_file.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from crossdistill.core import registry
from crossdistill.core.errors import nearest
from crossdistill.core.frozen import Frozen, WithSettings, fail
from crossdistill.core.method_config import MethodConfig
from crossdistill.core.recipe import SHORTER, TrainingConfig
from crossdistill.core.records import CEILING, EARLIER_TEACHER

NOT_METHODS = ("teacher", "independent", "second_independent", *SHORTER, CEILING, EARLIER_TEACHER)
"""Arms that no method makes: their names are taken."""


class ImagesConfig(WithSettings):
    """Where images come from, and how many of each split are used (all, where not said)."""

    source: str
    train_images: PositiveInt | None = None
    validation_images: PositiveInt | None = None
    test_images: PositiveInt | None = None
    test: str | None = None  # a source as on the command line, whose test images take the place of its own; or the word validation
    exclude: str | None = None  # a source whose test images are left out of training and validation, however they are stored there
    cue_conflict: Path | None = None  # the folder of the published texture-against-shape images: an extra test set
    transfer: str | None = None  # a source as on the command line, of further training images: their labels are not looked at
    transfer_images: PositiveInt | None = None  # how many of them; None: all

    @model_validator(mode="after")
    def _count_has_a_source(self) -> ImagesConfig:
        if self.transfer_images and not self.transfer:
            fail(("transfer_images",), "`transfer_images` belongs to `transfer: SOURCE`, which is not here: set that, or leave it out")
        return self


class NetworkConfig(WithSettings):
    """A network by model name, or a checkpoint that exists already. Further settings go to the model's source."""

    model: str | None = None
    pretrained: bool = False
    checkpoint: Path | None = None
    class_map: tuple[int, ...] | None = None  # class_map[k]: the data set's class of the checkpoint's output k
    training: dict[str, Any] = {}

    @model_validator(mode="after")
    def _says_what_it_is(self) -> NetworkConfig:
        if self.model is None and self.checkpoint is None:
            raise PydanticCustomError("no_model", "a network needs `model: small/resnet20` or `checkpoint: FILE.safetensors`")
        return self


class TeachersConfig(WithSettings):
    """How teachers are trained: any training setting, and how many runs. `per_seed`: run s is taught by teacher run s."""

    runs: Literal["per_seed", 1] = "per_seed"


class PairConfig(Frozen):
    """Who teaches whom, and how. `control_teacher`: a network of the student's own family, for the arm of that name."""

    teacher: str
    student: str
    control_teacher: str | None = None
    methods: tuple[MethodConfig, ...] = Field(min_length=1)

    def method(self, arm: str) -> MethodConfig:
        """The method of that label."""
        return next(method for method in self.methods if method.arm == arm)


class ContrastConfig(Frozen):
    """A contrast declared before any student starts: a method on one probe, over all its levels, against an arm of the study."""

    pair: int
    method: str
    probe: str
    against: Literal["independent", "twin", "shuffled_teacher", "control_teacher"] | None = None
    # None: the twin, where the method changes the student or its images and the study has that arm, else the independents


class ProbeConfig(WithSettings):
    name: str
    preset: Literal["quick", "full"] | None = None
    levels: tuple[dict[str, Any], ...] | None = None
    draws: PositiveInt | None = None
    masks: str | None = None  # a folder, grabcut, or a segmentation network; None: the source's own, else grabcut
    encoder: str | None = None  # a .safetensors file or a model's name
    styles: str | None = None  # a folder, images or textures


class ObserveConfig(Frozen):
    images: PositiveInt | None = None  # stratified subset of the test split for probes; None: all
    draws: PositiveInt | None = None  # of every probe that does not say its own; None: those of the preset
    batch_size: PositiveInt = 256
    instruments: tuple[str, ...] | None = None  # by name; None: all there are
    instrument_images: PositiveInt = 256  # stratified subset of the clean test images, the same for every network


class ResourcesConfig(Frozen):
    """What each task asks of a cluster; it changes where a task runs, and no byte of its result."""

    cpus: PositiveFloat | None = None  # None: the threads of its recipe
    gpus: NonNegativeFloat | None = None  # may be a part of one; None: one where the study runs on GPUs, else none


def core_probes() -> list[str]:
    """The probes that a study shows where it names none: cheap, and without weights."""
    return [name for name in registry.names("probe") if registry.get("probe", name).facts["core"]]


class StudyConfig(Frozen):
    """A whole study. Everything but `images`, `networks` and `pairs` has a default."""

    name: str
    images: ImagesConfig
    networks: dict[str, NetworkConfig]
    pairs: tuple[PairConfig, ...] = Field(min_length=1)
    teachers: TeachersConfig = TeachersConfig()
    arms: tuple[
        Literal["independent", "second_independent", "shorter_independents", "shuffled_teacher", "control_teacher", "twin"], ...
    ] = ("independent",)
    primary: tuple[ContrastConfig, ...] | None = None  # None: the first method of each pair, on every probe
    seed: int = 0
    seeds: tuple[int, ...] = Field(default=(0, 1, 2, 3, 4), min_length=1)
    training: TrainingConfig = TrainingConfig()
    preset: Literal["quick", "full"] = "quick"
    probes: tuple[ProbeConfig, ...] | None = None  # None: the core probes
    signal_gate: Literal["auto", "off"] = "auto"  # auto: a student is trained on a probe that no network of the study passes
    observe: ObserveConfig = ObserveConfig()
    wanted: dict[str, Literal["up", "down"]] = {}  # by probe or figure: the way that would be welcome; sorts verdicts, changes none
    resources: ResourcesConfig = ResourcesConfig()
    tracker: str | None = None  # tensorboard, or python:MODULE; None: nobody is told how a training goes

    @field_validator("signal_gate", mode="before")
    @classmethod
    def _unquoted_off(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads a bare `off` as false

    @model_validator(mode="after")
    def _names_agree(self) -> StudyConfig:
        for path, name in self._network_references():
            if name not in self.networks:
                fail(path, f"no network is called '{name}'.{nearest(name, self.networks)} `networks` has: {', '.join(self.networks)}")
        for i, pair in enumerate(self.pairs):
            self._check_pair(i, pair)
        self._check_repetitions()
        for i, contrast in enumerate(self.primary or ()):
            self._check_contrast(i, contrast)
        return self

    @model_validator(mode="after")
    def _no_setting_is_idle(self) -> StudyConfig:
        """A setting that no training uses was meant to do something; one that some network overrides serves the others."""
        try:
            recipes = [self.recipe(name, teacher=teacher) for name in self.networks for teacher in (False, True)]
        except ValidationError:
            return self  # told where the recipes are checked one by one, with their line
        places = {"milestones": "`schedule: step`", "momentum": "`optimizer: sgd`", "crop_scale": "`crop: resized`"}
        for setting, where in places.items():
            default = TrainingConfig.model_fields[setting].default
            if any(getattr(recipe, setting) != default for recipe in recipes) and not any(recipe.uses(setting) for recipe in recipes):
                fail(("training", setting), f"`{setting}` belongs to {where}, which no training here has: set that, or leave it out")
        return self

    def _check_pair(self, i: int, pair: PairConfig) -> None:
        labels = [method.arm for method in pair.methods]
        if clash := next((label for label in labels if labels.count(label) > 1 or label in NOT_METHODS), None):
            fail(("pairs", i, "methods"), f"two arms of this pair are called '{clash}': give one of them another `label`")
        for method in pair.methods:
            first = next(other for other in pair.methods if other.model_copy(update={"label": method.label}) == method)
            if first != method:
                fail(("pairs", i, "methods"), f"'{first.arm}' and '{method.arm}' are the same method with the same settings")
        if "control_teacher" in self.arms and pair.control_teacher is None:
            fail(("pairs", i), "the arm control_teacher needs `control_teacher:` in each pair, a network of the student's own family")
        if pair.control_teacher == pair.teacher:
            fail(("pairs", i, "control_teacher"), f"'{pair.teacher}' is the teacher itself: name a network of the student's own family")
        if self.networks[pair.student].checkpoint:
            fail(("pairs", i, "student"), f"network '{pair.student}' is a finished checkpoint: a student needs a `model`")

    def _check_repetitions(self) -> None:
        joined = [(pair.teacher, pair.student, method.arm) for pair in self.pairs for method in pair.methods]
        if twice := next((arm for arm in joined if joined.count(arm) > 1), None):
            fail(("pairs",), f"two pairs join {twice[0]} and {twice[1]} by '{twice[2]}': give one of the methods another `label`")
        if twice := next((name for name in self.probe_names if self.probe_names.count(name) > 1), None):
            fail(("probes",), f"probe '{twice}' stands here twice: give it all its `levels` at once")
        if len(set(self.seeds)) != len(self.seeds):
            fail(("seeds",), f"seeds repeat: {list(self.seeds)}")

    def _check_contrast(self, i: int, contrast: ContrastConfig) -> None:
        if not 0 <= contrast.pair < len(self.pairs):
            fail(("primary", i, "pair"), f"there is no pair {contrast.pair}: pairs count from 0 to {len(self.pairs) - 1}")
        arms = [method.arm for method in self.pairs[contrast.pair].methods]
        if contrast.method not in arms:
            there = f"{nearest(contrast.method, arms)} It has: {', '.join(arms)}"
            fail(("primary", i, "method"), f"pair {contrast.pair} has no method '{contrast.method}'.{there}")
        if contrast.probe not in self.probe_names:
            fail(("primary", i, "probe"), f"the study has no probe '{contrast.probe}'. It has: {', '.join(self.probe_names)}")
        if (against := self._against(contrast)) not in self.arms:
            there = f"Add it to `arms`, which has: {', '.join(self.arms) or 'none'}"
            fail(("primary", i, "against"), f"the study has no arm '{against}'. {there}")
        if self.contrasts[i] in self.contrasts[:i]:
            fail(("primary", i), "this contrast is declared above already: declare each once")

    def _network_references(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        for i, pair in enumerate(self.pairs):
            yield ("pairs", i, "teacher"), pair.teacher
            yield ("pairs", i, "student"), pair.student
            if pair.control_teacher is not None:
                yield ("pairs", i, "control_teacher"), pair.control_teacher

    @property
    def has_grids(self) -> bool:
        """Whether the weight of a method is still to be chosen."""
        return any(method.grid for pair in self.pairs for method in pair.methods)

    @property
    def chosen_probes(self) -> tuple[ProbeConfig, ...]:
        return self.probes if self.probes is not None else tuple(ProbeConfig(name=name) for name in core_probes())

    @property
    def probe_names(self) -> list[str]:
        return [probe.name for probe in self.chosen_probes]

    @property
    def contrasts(self) -> tuple[ContrastConfig, ...]:
        """The declared primary contrasts, each with the arm that it is against; by default the first method of each pair on every probe."""
        declared = self.primary
        if declared is None:
            first = [(i, pair.methods[0].arm) for i, pair in enumerate(self.pairs)]
            declared = tuple(ContrastConfig(pair=i, method=arm, probe=probe) for i, arm in first for probe in self.probe_names)
        return tuple(contrast.model_copy(update={"against": self._against(contrast)}) for contrast in declared)

    def _against(self, contrast: ContrastConfig) -> str:
        """The arm that a contrast is against: where it names none, the one that differs from the method's students by the teacher alone."""
        if contrast.against is not None:
            return contrast.against
        has_twin = "twin" in self.arms and self.pairs[contrast.pair].method(contrast.method).changes_student
        return "twin" if has_twin else "independent"

    def recipe(self, network: str, *, teacher: bool = False) -> TrainingConfig:
        """The recipe of one network: the study's, then the teachers' (for a teacher), then the network's own."""
        layers = [self.training.model_dump(exclude_unset=True), self.teachers.settings if teacher else {}, self.networks[network].training]
        return TrainingConfig.model_validate({name: value for layer in layers for name, value in layer.items()})

    def teacher_seeds(self, network: str) -> tuple[int, ...]:
        """The run seeds of a teacher: one a student seed, or a single run (always single for a finished checkpoint)."""
        single = self.teachers.runs == 1 or self.networks[network].checkpoint is not None
        return self.seeds[:1] if single else self.seeds

    def teacher_seed_for(self, network: str, seed: int) -> int:
        """The teacher run that teaches student run `seed`."""
        return seed if seed in self.teacher_seeds(network) else self.seeds[0]
