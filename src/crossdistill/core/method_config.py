"""A method in a pair of the study file: its weight, or a grid of them, and when it acts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, NonNegativeFloat, Tag, field_validator

from crossdistill.core import registry
from crossdistill.core.frozen import WithSettings, fail


def _one_or_grid(value: Any) -> str:
    return "grid" if isinstance(value, list | tuple) else "one"


Weight = Annotated[
    Annotated[NonNegativeFloat, Tag("one")] | Annotated[tuple[NonNegativeFloat, ...], Tag("grid")], Discriminator(_one_or_grid)
]
"""One weight, or a grid of them. What is wrong with either is told as such."""


class MethodConfig(WithSettings):
    """A method in a pair. `weight` multiplies every term but `ce`; `weights` replaces the published weight of single terms.

    A list of weights is a grid: one of them is chosen on validation images before anything else of the study is planned.
    """

    name: str
    label: str | None = Field(default=None, pattern=r"^[\w.-]+$")  # also the name of the runs' folders
    weight: Weight = 1.0
    weights: dict[str, NonNegativeFloat] = {}
    ramp_epochs: NonNegativeFloat = 0.0  # the weight of every term but `ce` rises linearly over these epochs
    until: float | None = Field(default=None, gt=0, le=1)  # share of the epochs (rounded up) with the teacher; then labels alone

    @property
    def arm(self) -> str:
        return self.label or self.name

    @property
    def grid(self) -> tuple[float, ...]:
        """The weights among which is chosen; none where one is given."""
        return self.weight if isinstance(self.weight, tuple) else ()

    @property
    def one_weight(self) -> float:
        """The weight of a method that trains, which has no grid any more."""
        assert not isinstance(self.weight, tuple), f"the weight of {self.arm} is not chosen yet"
        return self.weight

    @field_validator("weight")
    @classmethod
    def _several_weights(cls, weight: Weight) -> Weight:
        if isinstance(weight, tuple) and (len(weight) < 2 or len(set(weight)) < len(weight)):
            fail((), f"a grid has at least two weights, all of them different, got {list(weight)}: name others, or one number alone")
        return weight

    @property
    def changes_student(self) -> bool:
        """Whether the method changes the student or the images it is shown; else the independent is its student without a teacher."""
        plugin = registry.get("method", self.name)
        views = plugin.facts["views"]
        return bool(plugin.facts["prepare_student"] or (views and views(plugin.complete(self.settings))))
