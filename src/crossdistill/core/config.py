"""The study file as frozen models: whatever would change a number in the report, and nothing else.

What only one model can know is checked in it; what only plug-ins know is checked where the file is read (core/study_file.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from crossdistill.core import registry
from crossdistill.core.errors import nearest
from crossdistill.core.records import CEILING, EARLIER_TEACHER

SHORTER = {"independent_40": 0.4, "independent_60": 0.6, "independent_80": 0.8}
"""The arms of `shorter_independents`: independents of a share of the epochs, for the line of probe accuracy on clean accuracy."""

NOT_METHODS = ("teacher", "independent", "second_independent", *SHORTER, CEILING, EARLIER_TEACHER)
"""Arms that no method makes: their names are taken."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_settings(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for name in data:
                if name not in cls.model_fields:
                    message = (
                        f"there is no setting '{name}' here.{nearest(str(name), cls.model_fields)} There are: {', '.join(cls.model_fields)}"
                    )
                    raise PydanticCustomError("unknown_setting", "{message}", {"message": message, "path": [name]})
        return data


class WithSettings(Frozen):
    """A model that keeps what it does not know in `settings`, for the plug-in to validate."""

    settings: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_settings(cls, data: Any) -> Any:
        if isinstance(data, str) and (short := cls.model_fields.keys() & {"name", "source"}):
            data = {short.pop(): data}  # `kd` for `{name: kd}`
        if not isinstance(data, Mapping):
            return data
        known = {name: value for name, value in data.items() if name in cls.model_fields}
        rest = {name: value for name, value in data.items() if name not in cls.model_fields}
        return {**known, "settings": {**known.get("settings", {}), **rest}}


class ImagesConfig(WithSettings):
    """Where images come from, and how many of each split are used (all, where not said)."""

    source: str
    train_images: PositiveInt | None = None
    validation_images: PositiveInt | None = None
    test_images: PositiveInt | None = None
    cue_conflict: Path | None = None  # the folder of the published texture-against-shape images: an extra test set
    transfer: str | None = None  # a source as on the command line, of further training images: their labels are not looked at
    transfer_images: PositiveInt | None = None  # how many of them; None: all

    @model_validator(mode="after")
    def _count_has_a_source(self) -> ImagesConfig:
        if self.transfer_images and not self.transfer:
            _fail(("transfer_images",), "`transfer_images` belongs to `transfer: SOURCE`, which is not here: set that, or leave it out")
        return self


class ViewsConfig(Frozen):
    """Enumerated views of each image: `crops` stored crops (reflected by an eighth of the side), each flipped or not."""

    crops: PositiveInt = 8
    flip: bool = True


class TrainingConfig(Frozen):
    """The recipe of one training. `learning_rate` is the peak, after warm-up and before the schedule lowers it."""

    epochs: PositiveInt = 30
    batch_size: PositiveInt = 128  # of all devices together
    accumulate: PositiveInt = 1  # micro-batches for each optimiser step
    devices: PositiveInt = 1  # processes that share each batch; another number gives other bytes
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.05  # on the weights of linear layers and convolutions only
    momentum: float = Field(default=0.9, ge=0, lt=1)  # sgd, with Nesterov
    schedule: Literal["cosine", "step", "constant"] = "cosine"  # cosine: to zero
    milestones: tuple[float, ...] = (0.5, 0.75)  # of `step`: shares of the training after each of which the rate falls to a tenth
    warmup_epochs: NonNegativeFloat | None = None  # linear; None: 1, for networks of tokens a tenth of the epochs if that is more
    clip_norm: PositiveFloat | None = 1.0
    early_stopping: PositiveInt | None = None  # epochs without a better validation accuracy; then the best epoch's weights are kept
    freeze: Literal["backbone"] | tuple[str, ...] | None = None  # all but the heads, or what these parameters' names begin with
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    mixup: NonNegativeFloat = 0.0  # alpha of the Beta distribution; 0 is off
    cutmix: NonNegativeFloat = 0.0  # likewise; where both are on, each step draws one of them
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where the hardware has units for it
    compile: bool = False  # the student by torch.compile
    views: ViewsConfig | Literal["free", "none"] = ViewsConfig()
    crop: Literal["auto", "shift", "resized"] = "auto"  # auto: resized where a side is above 64 px, else shifted by up to an eighth
    crop_scale: tuple[float, float] = (0.08, 1.0)  # of `resized`: share of the image's area
    color: Literal["none", "jitter", "trivial_augment", "rand_augment"] = "none"  # a policy of torchvision's, drawn for each image
    random_erasing: float = Field(default=0.0, ge=0, le=1)  # probability that a box of the image is erased
    threads: PositiveInt = 2  # different thread counts give different weight bytes
    ema: float | None = Field(default=None, gt=0, lt=1)  # decay of an average of the weights, which is then what is kept; None: off
    cache_dtype: Literal["float32", "float16"] = "float32"  # to which the teacher's answers are rounded, cached or not
    cache: Literal["auto", "off", "required"] = "auto"  # of the teacher's answers; auto: where that saves time
    checkpoint_every: str = Field(default="10 minutes", pattern=r"^[1-9]\d* (steps?|minutes?)$")  # beside every epoch's end

    @field_validator("cache", mode="before")
    @classmethod
    def _unquoted_off(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads a bare `off` as false

    @field_validator("milestones")
    @classmethod
    def _in_order(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not low < high for low, high in zip((0.0, *value), (*value, 1.0), strict=True)):
            raise PydanticCustomError("milestones", "shares of the training stand here, each between 0 and 1 and above the one before")
        return value

    @field_validator("freeze", mode="before")
    @classmethod
    def _backbone_or_names(cls, value: Any) -> Any:
        if value is None or value == "backbone" or (isinstance(value, list | tuple) and value):
            return value
        raise PydanticCustomError("freeze", "`backbone` stands here, or a list of names such as [patch_embed, blocks.0]")

    @field_validator("crop_scale")
    @classmethod
    def _shares(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise PydanticCustomError("crop_scale", "two shares of the image's area stand here, above 0, at most 1, the smaller one first")
        return value

    @model_validator(mode="after")
    def _has_views_to_change(self) -> TrainingConfig:
        changes = [name for name in ("crop", "color", "random_erasing") if getattr(self, name) != type(self).model_fields[name].default]
        if self.views == "none" and changes:
            _fail(("views",), f"`views: none` shows images as they are, and `{changes[0]}` would change them: leave one of them out")
        return self

    def uses(self, setting: str) -> bool:
        """Whether a setting has any effect beside the others."""
        used = {"milestones": self.schedule == "step", "momentum": self.optimizer == "sgd", "crop_scale": self.crop != "shift"}
        return used.get(setting, True)

    def identity(self) -> dict[str, Any]:
        """What of the recipe can change a result, where it differs from the default, as plain JSON: the part of keys and records."""
        idle = {name for name in type(self).model_fields if not self.uses(name)}
        return self.model_dump(mode="json", exclude_defaults=True, exclude=EXECUTION | idle)


EXECUTION = {"cache", "checkpoint_every"}
"""Settings of a training that change how it is carried out, and no byte of its result."""


def shortened(recipe: TrainingConfig, arm: str) -> TrainingConfig:
    """The recipe for the share of the epochs that is the arm's, at least one; warm-up and schedule follow as the recipe says.

    >>> [shortened(TrainingConfig(epochs=12), arm).epochs for arm in SHORTER]
    [5, 7, 10]
    """
    return recipe.model_copy(update={"epochs": max(1, round(SHORTER[arm] * recipe.epochs))})


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


class MethodConfig(WithSettings):
    """A method in a pair. `weight` multiplies every term but `ce`; `weights` replaces the published weight of single terms."""

    name: str
    label: str | None = Field(default=None, pattern=r"^[\w.-]+$")  # also the name of the runs' folders
    weight: NonNegativeFloat = 1.0
    weights: dict[str, NonNegativeFloat] = {}
    ramp_epochs: NonNegativeFloat = 0.0  # the weight of every term but `ce` rises linearly over these epochs
    until: float | None = Field(default=None, gt=0, le=1)  # share of the epochs (rounded up) with the teacher; then labels alone

    @property
    def arm(self) -> str:
        return self.label or self.name

    @property
    def changes_student(self) -> bool:
        """Whether the method changes the student or the images it is shown; else the independent is its student without a teacher."""
        plugin = registry.get("method", self.name)
        views = plugin.facts["views"]
        return bool(plugin.facts["prepare_student"] or (views and views(plugin.complete(self.settings))))


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

    @field_validator("signal_gate", mode="before")
    @classmethod
    def _unquoted_off(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads a bare `off` as false

    @model_validator(mode="after")
    def _names_agree(self) -> StudyConfig:
        for path, name in self._network_references():
            if name not in self.networks:
                _fail(path, f"no network is called '{name}'.{nearest(name, self.networks)} `networks` has: {', '.join(self.networks)}")
        for i, pair in enumerate(self.pairs):
            labels = [method.arm for method in pair.methods]
            if clash := next((label for label in labels if labels.count(label) > 1 or label in NOT_METHODS), None):
                _fail(("pairs", i, "methods"), f"two arms of this pair are called '{clash}': give one of them another `label`")
            for method in pair.methods:
                first = next(other for other in pair.methods if other.model_copy(update={"label": method.label}) == method)
                if first != method:
                    _fail(("pairs", i, "methods"), f"'{first.arm}' and '{method.arm}' are the same method with the same settings")
            if "control_teacher" in self.arms and pair.control_teacher is None:
                _fail(("pairs", i), "the arm control_teacher needs `control_teacher:` in each pair, a network of the student's own family")
            if pair.control_teacher == pair.teacher:
                _fail(
                    ("pairs", i, "control_teacher"), f"'{pair.teacher}' is the teacher itself: name a network of the student's own family"
                )
            if self.networks[pair.student].checkpoint:
                _fail(("pairs", i, "student"), f"network '{pair.student}' is a finished checkpoint: a student needs a `model`")
        joined = [(pair.teacher, pair.student, method.arm) for pair in self.pairs for method in pair.methods]
        if twice := next((arm for arm in joined if joined.count(arm) > 1), None):
            _fail(("pairs",), f"two pairs join {twice[0]} and {twice[1]} by '{twice[2]}': give one of the methods another `label`")
        if twice := next((name for name in self.probe_names if self.probe_names.count(name) > 1), None):
            _fail(("probes",), f"probe '{twice}' stands here twice: give it all its `levels` at once")
        if len(set(self.seeds)) != len(self.seeds):
            _fail(("seeds",), f"seeds repeat: {list(self.seeds)}")
        for i, contrast in enumerate(self.primary or ()):
            if not 0 <= contrast.pair < len(self.pairs):
                _fail(("primary", i, "pair"), f"there is no pair {contrast.pair}: pairs count from 0 to {len(self.pairs) - 1}")
            arms = [method.arm for method in self.pairs[contrast.pair].methods]
            if contrast.method not in arms:
                _fail(
                    ("primary", i, "method"),
                    f"pair {contrast.pair} has no method '{contrast.method}'.{nearest(contrast.method, arms)} It has: {', '.join(arms)}",
                )
            if contrast.probe not in self.probe_names:
                _fail(("primary", i, "probe"), f"the study has no probe '{contrast.probe}'. It has: {', '.join(self.probe_names)}")
            if (against := self._against(contrast)) not in self.arms:
                _fail(
                    ("primary", i, "against"),
                    f"the study has no arm '{against}'. Add it to `arms`, which has: {', '.join(self.arms) or 'none'}",
                )
            if self.contrasts[i] in self.contrasts[:i]:
                _fail(("primary", i), "this contrast is declared above already: declare each once")
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
                _fail(("training", setting), f"`{setting}` belongs to {where}, which no training here has: set that, or leave it out")
        return self

    def _network_references(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        for i, pair in enumerate(self.pairs):
            yield ("pairs", i, "teacher"), pair.teacher
            yield ("pairs", i, "student"), pair.student
            if pair.control_teacher is not None:
                yield ("pairs", i, "control_teacher"), pair.control_teacher

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


def _fail(path: Iterable[str | int], message: str) -> None:
    raise PydanticCustomError("study", "{message}", {"message": message, "path": list(path)})
