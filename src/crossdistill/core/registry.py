"""Plug-ins: file name = function name = name in a study file. Names are listed without importing the files.

A plug-in is a function marked by a decorator of this module, which records facts and returns it unchanged. What the engine
supplies is positional; a setting is keyword-only, and the settings schema is read from the signature. Other packages add
plug-ins through entry points in the groups `crossdistill.methods`, `crossdistill.probes` and so on.
"""

import ast
import hashlib
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from crossdistill.core.errors import SettingError, UnknownNameError, nearest, unknown_name
from crossdistill.core.setting_words import described_settings

F = TypeVar("F", bound=Callable[..., Any])

PACKAGES = {"method": "methods", "probe": "probes", "metric": "metrics", "model": "models", "images": "images", "instrument": "instruments"}
"""The kinds of plug-in, and the package in which the built-in ones live."""


@dataclass(frozen=True)
class Plugin:
    """One plug-in: its function, and the facts that its decorator recorded."""

    kind: str
    name: str
    function: Callable[..., Any]
    facts: Mapping[str, Any]
    version: int = 1

    @property
    def summary(self) -> str:
        """The first line of the file's docstring, which also names the source."""
        module = inspect.getmodule(self.function)
        return _first_line((module.__doc__ if module else None) or self.function.__doc__)

    @property
    def inputs(self) -> list[str]:
        """What the engine supplies: the names of the positional parameters."""
        parameters = inspect.signature(self.function).parameters.values()
        return [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]

    @property
    def settings(self) -> type[BaseModel]:
        """The settings as a pydantic model, one field for each keyword-only parameter."""
        hints = typing.get_type_hints(self.function, include_extras=True)
        parameters = inspect.signature(self.function).parameters.values()
        fields: dict[str, Any] = {
            p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default) for p in parameters if p.kind is p.KEYWORD_ONLY
        }
        return create_model(
            self.name, __config__=ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False), **fields
        )

    def parse(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that were given, validated and in their declared types; defaults are left to the function.

        Raises UnknownNameError for an unknown setting and SettingError for one of the wrong type.
        """
        parsed = self._validated(settings)
        return {name: getattr(parsed, name) for name in type(parsed).model_fields if name in parsed.model_fields_set}

    def _validated(self, settings: Mapping[str, Any]) -> BaseModel:
        schema = self.settings
        for name in settings:
            if name not in schema.model_fields:
                known = ", ".join(schema.model_fields) or "it has none"
                raise UnknownNameError(
                    f"{self.kind} '{self.name}' has no setting '{name}'.{nearest(name, schema.model_fields)} Its settings: {known}."
                )
        try:
            return schema.model_validate(dict(settings))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            came = "" if first["type"] == "missing" else f", got {first['input']!r}"
            raise SettingError(f"setting '{where}' of {self.kind} '{self.name}': {first['msg'].lower()}{came}") from error

    def complete(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """All settings: those given, validated, and the defaults of the others."""
        return dict(self._validated(settings))

    def chosen(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that differ from their defaults, as they are written in JSON: what a key may hold."""
        return self._validated(settings).model_dump(mode="json", exclude_defaults=True)

    @property
    def identity(self) -> int | str:
        """What changes when the plug-in gives other bytes: a built-in declares a version, for anyone else's the source is what we know."""
        return self.version if self.function.__module__.startswith("crossdistill.") else self.source_hash

    @property
    def source_hash(self) -> str:
        """Hash of the syntax trees of the file that defines the plug-in and of the helpers beside it (`_NAME.py`) that it uses.

        Comments and layout do not count.
        """
        trees = _syntax_trees(self.function.__module__)
        return hashlib.sha256("".join(trees[name] for name in sorted(trees)).encode()).hexdigest()[:16]


def _syntax_trees(module: str, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """The syntax trees of a module and of its package's private modules that it imports, directly or not, by name."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    found = {**(known or {}), module: ast.dump(tree)}
    beside = module.rpartition(".")[0] + "._"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(beside) and node.module not in found:
            found = _syntax_trees(str(node.module), found)
    return found


@dataclass(frozen=True)
class Mark:
    """What a decorator recorded on a plug-in's function."""

    kind: str
    version: int
    facts: Mapping[str, Any] = field(default_factory=dict)


def _mark(kind: str, version: int, facts: Mapping[str, Any]) -> Callable[[F], F]:
    def mark(function: F) -> F:
        function.__crossdistill__ = Mark(kind, version, facts)  # type: ignore[attr-defined]
        return function

    return mark


def method(
    *,
    paper: str,
    weights: Mapping[str, float] | Callable[[Mapping[str, Any]], Mapping[str, float]],
    direction: str = "any",
    needs: Callable[..., Any] | None = None,
    views: Callable[[Mapping[str, Any]], Any] | None = None,
    prepare_student: Callable[..., Any] | None = None,
    warm_up: Any = None,
    version: int = 1,
) -> Callable[[F], F]:
    """Mark a factory `(student, teacher, images, rng, *, settings) -> objective` as a distillation method.

    `weights` are the published weights of its terms, or a function of the settings that gives them. `direction` says in words
    which pairs it was published for. Optional, each called with all settings, defaults included:
    `needs(settings, student_shapes, teacher_shapes) -> Needs`; `views(settings) -> Views`, where it shows other images than the
    augmented ones; `prepare_student(network, settings)`, which adds tokens or heads. `warm_up` is a WarmUp, whose trained module
    the factory takes as `warm`. `rng` is for draws while the objective is made; inside it torch's global generator serves, keyed
    afresh for each step.
    """
    facts = dict(
        paper=paper, weights=weights, direction=direction, needs=needs, views=views, prepare_student=prepare_student, warm_up=warm_up
    )
    return _mark("method", version, facts)


Levels = list[dict[str, Any]] | Callable[[tuple[int, int]], list[dict[str, Any]]]


def probe(
    *,
    isolates: str,
    quick: Levels,
    full: Levels,
    draws: Mapping[str, int],
    null: Mapping[str, Any] | None,
    core: bool = True,
    control_of: str | None = None,
    block: int | None = None,
    tile: Callable[..., tuple[int, int]] | None = None,
    removes: tuple[str, ...] = (),
    about: tuple[str, ...] = (),
    version: int = 1,
) -> Callable[[F], F]:
    """Mark a function `(images, labels, index, seed, *, levels) -> ProbeImages` as a probe.

    The engine supplies what its positional parameters name: `images`, `labels`, `index` and `seed`; `image_set` (the same images
    with ids, factors and provenance) and `pool` (all images of the set, in which `index` counts); and, where they can be had,
    `masks`, `encoder`, `styles` and `style_labels` (None where styles have no classes). `isolates` says in words what a high
    accuracy means; `quick` and `full` list the levels of the two presets, mildest first, or are functions of the size (height,
    width) that do; `draws` their number of draws ({"quick": 1, "full": 5}); `null` is the level that must return the clean bytes,
    or None where there can be none.

    `core` probes are the default of a study: cheap, and without weights. `control_of` names the probe whose effect this one shows
    without the cue; both are given the same seed. `removes` are the factors of the source, such as texture, that its images no
    longer show: a probe set leaves them out, unless the probe reports them anew. A probe with a `block` is given exactly that many
    images at a time, since its bytes may depend on their company; all others must not. `tile(size, level)` gives the (height,
    width) of the cells on which it works, where there is such a grid: a level whose cells are whole patches of a ViT is easier for
    it by construction. `about` says of what its figures tell, for the questions that a study's page answers: any of "shape",
    "texture", "locality", "permutation" and "noise", or a word of your own, which no question asks for.
    """
    facts = dict(
        isolates=isolates, quick=quick, full=full, draws=draws, null=null, core=core, control_of=control_of, block=block, tile=tile,
        removes=removes, about=about,
    )  # fmt: skip
    return _mark("probe", version, facts)


def metric(*, source: str, unit: str, version: int = 1) -> Callable[[F], F]:
    """Mark a numpy function that returns an Estimate (or several, by name) as a metric.

    `unit` says what its figures are. Each Estimate has its own, by which the comparison knows that students may be contrasted with
    controls in it: "share", "probability" and "kappa" are the usual ones, where 0.02 are two points.
    """
    return _mark("metric", version, dict(source=source, unit=unit))


def instrument(*, source: str, unit: str, version: int = 1) -> Callable[[F], F]:
    """Mark a function `(network, images, *, settings) -> array` (or several, by name) as an instrument.

    It shows a Network the images, uint8 or [0, 1] [images, 3, height, width] on the network's device, inside passes of its own, and
    reduces on the spot: float32 numpy, one row an image whatever its company, so that batches are put one after another. It
    leaves the network, and every random generator, as it found them. Raises SettingError with the reason where this network has
    nothing to measure. A third input named `classes` gets the images' labels. Of the unit "share of the largest" a study draws the
    maps over its images; of "activation" it keeps the inner products between images, which is all that CKA reads.
    """
    return _mark("instrument", version, dict(source=source, unit=unit))


def model_source(*, example: str, version: int = 1) -> Callable[[F], F]:
    """Mark a function `(name, n_classes, size, *, settings) -> Network` as a source of models."""
    return _mark("model", version, dict(example=example))


def image_source(
    *, example: str, masks: Callable[..., Any] | None = None, retextured: Callable[..., Any] | None = None, version: int = 1
) -> Callable[[F], F]:
    """Mark a function `(*, settings) -> RawImages` as a source of images.

    A source that knows where the objects are gives `masks(images: ImageSet) -> uint8 [images, height, width]`, 0 to 255 for the
    covered share of each pixel; one that can draw its objects in another texture `retextured(images, textures int64) -> uint8`.
    """
    return _mark("images", version, dict(example=example, masks=masks, retextured=retextured))


def _first_line(docstring: str | None) -> str:
    return (docstring or "").strip().split("\n", 1)[0]


def _folder(kind: str) -> Path:
    return Path(__file__).parent.parent / PACKAGES[kind]


@cache
def _entry_points(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"crossdistill.{PACKAGES[kind]}")}


def _built_in(kind: str) -> list[str]:
    return [module.name for module in pkgutil.iter_modules([str(_folder(kind))]) if not module.name.startswith("_")]


def names(kind: str) -> list[str]:
    """All names of a kind, sorted, without importing any of them."""
    return sorted({*_built_in(kind), *_entry_points(kind)})


def summary(kind: str, name: str) -> str:
    """The first line of a plug-in's docstring, read from a built-in file without importing it."""
    if name in _built_in(kind):
        return _first_line(ast.get_docstring(ast.parse((_folder(kind) / f"{name}.py").read_text(encoding="utf-8"))))
    return get(kind, name).summary


def get(kind: str, name: str) -> Plugin:
    """The plug-in of that name. Raises UnknownNameError, with the nearest name, where there is none."""
    built_in = name in _built_in(kind)
    if built_in and name in _entry_points(kind):
        raise SettingError(
            f"an installed package hides the built-in {kind} '{name}' ({_entry_points(kind)[name].value}): rename its entry point"
        )
    if built_in:
        function = getattr(importlib.import_module(f"crossdistill.{PACKAGES[kind]}.{name}"), name)
    elif name in _entry_points(kind):
        function = _entry_points(kind)[name].load()
    else:
        raise unknown_name(kind, name, names(kind))
    return as_plugin(name, function)


def as_plugin(name: str, function: Callable[..., Any]) -> Plugin:
    """A marked function as a plug-in, also one that no file registers (a user's own, or a test's)."""
    mark: Mark = function.__crossdistill__  # type: ignore[attr-defined]
    return Plugin(mark.kind, name, function, mark.facts, mark.version)


def describe(plugin: Plugin) -> dict[str, Any]:
    """What `crossdistill list KIND NAME` shows: the decorator's facts that are plain data, and each setting's type and default."""
    plain = {name: value for name, value in plugin.facts.items() if isinstance(value, str | int | float | list | tuple | dict)}
    return {
        "name": plugin.name,
        "summary": plugin.summary,
        **plain,
        "version": plugin.version,
        "settings": described_settings(plugin.settings),
    }
