"""Reading a study file: YAML in, a checked StudyConfig out.

Errors name the line of the file, what was expected, what came, and the nearest name that exists.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from crossdistill.core import registry
from crossdistill.core.config import ContrastConfig, ProbeConfig, StudyConfig
from crossdistill.core.errors import CrossdistillError, SettingError, UnknownNameError, nearest
from crossdistill.core.recipe import SHORTER, TrainingConfig, shortened


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `1e-3` is a number (YAML 1.2) and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)  # `<<: *defaults`
        seen: set[Any] = set()
        for key_node, _ in node.value:
            name = self.construct_object(key_node, deep=True)
            if not isinstance(name, str | int | float):
                raise yaml.constructor.ConstructorError(
                    None, None, "a name was expected here (is a text with braces unquoted?)", key_node.start_mark
                )
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{name}' stands here twice", key_node.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))


def read_study(path: Path) -> StudyConfig:
    """The study of a YAML file, checked in full, plug-ins and their settings included.

    Raises SettingError naming file, line, what was expected and what came.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise SettingError(f"cannot read the study file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"{path} is no text file in UTF-8: a study file is YAML") from error
    return parse_study(text, source=str(path), default_name=Path(path).stem)


def parse_study(text: str, *, source: str = "study", default_name: str = "study") -> StudyConfig:
    """The study of a YAML text; see `read_study`."""
    try:
        node = yaml.compose(text, Loader=_Loader)
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise SettingError(f"{source}{where}: this is not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(data, dict):
        raise SettingError(f"{source}: a study file is a mapping with `images`, `networks` and `pairs`, got {type(data).__name__}")
    lines = dict(_lines(node))
    try:
        study = StudyConfig.model_validate({"name": default_name, **data})
    except ValidationError as error:
        path, message = _explain(error)
        raise SettingError(_located(source, lines, path, message)) from error
    for path, check in _plugin_checks(study):
        try:
            check()
        except CrossdistillError as error:
            raise type(error)(_located(source, lines, path, str(error))) from error
    return study


def _lines(node: yaml.Node, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key_node, value in node.value:
            yield (*path, key_node.value), key_node.start_mark.line + 1
            yield from _lines(value, (*path, key_node.value))
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield (*path, i), value.start_mark.line + 1
            yield from _lines(value, (*path, i))


def _located(source: str, lines: Mapping[tuple[Any, ...], int], path: tuple[Any, ...], message: str) -> str:
    found: tuple[Any, ...] = ()
    for part in path:  # pydantic adds parts that the file does not have, such as the branch of a union
        if (*found, part) in lines:
            found = (*found, part)
    line = f", line {lines[found]}" if found else ""
    where = ".".join(str(part) for part in found)
    return f"{source}{line}: {where + ': ' if where else ''}{message}"


def _explain(error: ValidationError) -> tuple[tuple[Any, ...], str]:
    first = error.errors()[0]
    path = (*first["loc"], *first.get("ctx", {}).get("path", ()))
    if first["type"] in ("unknown_setting", "study", "no_model"):
        return path, first["msg"]
    if first["type"] == "missing":
        return path[:-1], f"`{path[-1]}` is missing"
    return path, f"{first['msg'][0].lower()}{first['msg'][1:]}, got {first['input']!r}"


def _plugin_checks(study: StudyConfig) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """What only the plug-ins know: names and settings of methods, probes, models and image sources."""
    yield ("images", "source"), lambda: registry.get("images", study.images.source).parse(study.images.settings)
    yield ("teachers",), lambda: _checked(lambda: TrainingConfig.model_validate(study.teachers.settings))
    for name, network in study.networks.items():
        yield ("networks", name, "training"), lambda network=network: _checked(lambda: TrainingConfig.model_validate(network.training))
        yield ("networks", name, "training"), lambda name=name: _checked(lambda: [study.recipe(name, teacher=t) for t in (False, True)])
        if network.model:
            source = re.split("[/:]", network.model)[0]
            yield ("networks", name, "model"), lambda source=source: registry.get("model", source)
    for i, pair in enumerate(study.pairs):
        for j, method in enumerate(pair.methods):
            yield ("pairs", i, "methods", j), lambda method=method: registry.get("method", method.name).parse(method.settings)
    for i, name in enumerate(study.observe.instruments or ()):
        yield ("observe", "instruments", i), lambda name=name: registry.get("instrument", name)
    for i, contrast in enumerate(study.primary or ()):
        yield ("primary", i, "against"), lambda contrast=contrast: _check_against(study, contrast)
    yield ("arms",), lambda: _check_shorter(study)
    for i, probe in enumerate(study.probes or ()):
        yield ("probes", i), lambda probe=probe: _check_probe(probe)
    for name in study.wanted:
        yield ("wanted", name), lambda name=name: _check_wanted(study, name)


def _checked(validate: Callable[[], object]) -> None:
    try:
        validate()
    except ValidationError as error:
        path, message = _explain(error)
        raise SettingError(f"{'.'.join(map(str, path))}: {message}") from error


def _check_against(study: StudyConfig, contrast: ContrastConfig) -> None:
    method = study.pairs[contrast.pair].method(contrast.method)
    if contrast.against == "twin" and not method.changes_student:
        raise SettingError(
            f"'{contrast.method}' has no twin: it changes neither the student nor its images, so that its student without a teacher is the "
            "independent. Declare it against `independent`."
        )


def _check_shorter(study: StudyConfig) -> None:
    if "shorter_independents" not in study.arms:
        return
    for student in dict.fromkeys(pair.student for pair in study.pairs):
        recipe = study.recipe(student)
        epochs = [shortened(recipe, arm).epochs for arm in SHORTER]
        if len({*epochs, recipe.epochs}) <= len(epochs):
            raise SettingError(
                f"shorter_independents take 40, 60 and 80 % of the epochs, and of the {recipe.epochs} of '{student}' these are "
                f"{', '.join(map(str, epochs))}: give 5 `epochs` or more, or leave the arm out"
            )


def _check_wanted(study: StudyConfig, name: str) -> None:
    """A probe of the study, or a figure: a metric's name, or one that begins with it, such as cue_choice_shape."""
    metrics = registry.names("metric")
    if name in study.probe_names or any(name == metric or name.startswith(f"{metric}_") for metric in metrics):
        return
    known = [*study.probe_names, *metrics]
    raise UnknownNameError(
        f"neither a probe of this study nor a figure is called '{name}'.{nearest(name, known)} "
        f"Its probes: {', '.join(study.probe_names)}. Figures: {', '.join(metrics)}"
    )


def _check_probe(probe: ProbeConfig) -> None:
    plugin = registry.get("probe", probe.name)
    for level in probe.levels or ({},):
        plugin.parse({**probe.settings, **level})
