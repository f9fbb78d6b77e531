"""The recipe of one training, as a frozen model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator
from pydantic_core import PydanticCustomError

from crossdistill.core.frozen import Frozen, fail

SHORTER = {"independent_40": 0.4, "independent_60": 0.6, "independent_80": 0.8}
"""The arms of `shorter_independents`: independents of a share of the epochs, for the line of probe accuracy on clean accuracy."""


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
            fail(("views",), f"`views: none` shows images as they are, and `{changes[0]}` would change them: leave one of them out")
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
