"""Settings in words: every kind of annotation that plug-ins use, and none that shows Python's own names."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, TypeAdapter

from crossdistill.core import registry
from crossdistill.core.setting_words import described_settings, type_words


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (PositiveInt, "whole number above 0"),
        (NonNegativeFloat, "number at least 0"),
        (Annotated[float, Field(ge=0, le=1)], "number from 0 to 1"),
        (Annotated[float, Field(gt=0, le=1)], "number above 0 and at most 1"),
        (Annotated[float, Field(ge=0, le=1)] | None, "number from 0 to 1 or null"),
        (Literal["hard"], "hard"),
        (Literal["hard", "soft"] | None, "hard, soft or null"),
        (tuple[PositiveFloat, PositiveFloat, PositiveFloat], "list of 3 (number above 0)"),
        (tuple[int, str], "list of 2 (whole number, text)"),
        (Annotated[tuple[Literal[1, 2], ...], Field(min_length=1)], "list of at least 1 (1 or 2)"),
        (PositiveFloat | tuple[PositiveFloat, ...], "number above 0 or list (number above 0)"),
        (bool, "true or false"),
        (Path | None, "path or null"),
        (dict[str, Any], "mapping"),
        (Any, "anything"),
    ],
    ids=str,
)
def test_an_annotation_is_said_in_words(annotation: Any, words: str) -> None:
    assert type_words(TypeAdapter(annotation).json_schema()) == words


@registry.metric(source="this test", unit="")
def odd(values: Any, *, choose: Callable[[int], int], size: tuple[int, int] = (2, 3)) -> None:
    """A plug-in with a required setting, of a type that no study file can hold."""


def test_a_type_without_a_schema_is_anything_and_a_required_setting_has_no_default() -> None:
    assert described_settings(registry.as_plugin("odd", odd).settings) == {
        "choose": {"type": "anything"},
        "size": {"type": "list of 2 (whole number)", "default": (2, 3)},
    }


@pytest.mark.parametrize("kind", registry.PACKAGES)
def test_no_plugin_shows_how_python_writes_its_facts(kind: str) -> None:
    for name in registry.names(kind):
        text = str(registry.describe(registry.get(kind, name)))
        assert not [sign for sign in (" object at 0x", "typing.", "Annotated", "Literal", "WarmUp(", "<function", "<class") if sign in text]
