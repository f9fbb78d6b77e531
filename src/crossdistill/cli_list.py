"""`crossdistill list`: what plug-ins there are, and what one of them is and takes."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from crossdistill.cli_options import Json
from crossdistill.cli_tables import print_table


def list_plugins(
    kind: Annotated[str, typer.Argument(help="methods, probes, metrics, instruments, models or images")],
    name: Annotated[str | None, typer.Argument(help="One of them; without it all are named.")] = None,
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The gallery page of methods or probes, or one entry of it.")] = False,
) -> None:
    """What there is, or what one of them is and takes."""
    from crossdistill.core import registry
    from crossdistill.core.errors import SettingError, unknown_name

    kinds = {folder: singular for singular, folder in registry.PACKAGES.items()}
    if kind not in kinds:
        raise unknown_name("kind", kind, kinds)
    galleries = {"methods": _show_methods, "probes": _show_probes}
    if markdown and kind not in galleries:
        raise SettingError(f"there is a gallery page of {' and of '.join(galleries)}, not of {kind}: leave --markdown out")
    if name is None and not markdown:
        rows = [{"name": n, "summary": registry.summary(kinds[kind], n)} for n in registry.names(kinds[kind])]
        print(json.dumps(rows, indent=1)) if as_json else print_table(("name", "summary"), [[row["name"], row["summary"]] for row in rows])
    elif kind in galleries:
        galleries[kind](name, as_json, markdown)
    else:
        assert name is not None
        facts = registry.describe(registry.get(kinds[kind], name))
        print(json.dumps(facts, indent=1, default=str)) if as_json else _show_facts(facts)


def _show_methods(name: str | None, as_json: bool, markdown: bool) -> None:
    """One method, or the page of all."""
    from dataclasses import asdict

    from crossdistill.core import registry
    from crossdistill.study.gallery import gallery, section
    from crossdistill.study.method_card import method_card

    if name is None:
        print(gallery(method_card(registry.get("method", each)) for each in registry.names("method")), end="")
        return
    card = method_card(registry.get("method", name))
    if as_json:
        print(json.dumps(asdict(card), indent=1, default=str))
    else:
        _show_markdown(section(card), markdown)


def _show_probes(name: str | None, as_json: bool, markdown: bool) -> None:
    """One probe, or the page of all."""
    from crossdistill.core import registry
    from crossdistill.study.probe_gallery import probe_gallery, section

    if name is None:
        print(probe_gallery(registry.get("probe", each) for each in registry.names("probe")), end="")
    elif as_json:
        print(json.dumps(registry.describe(registry.get("probe", name)), indent=1, default=str))
    else:
        _show_markdown(section(registry.get("probe", name), pictures=markdown), markdown)


def _show_markdown(text: str, raw: bool) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    print(text) if raw else Console().print(Markdown(text))


def _show_facts(facts: dict[str, Any]) -> None:
    from crossdistill.core.setting_words import default_words

    settings = {
        f"setting {name}": setting["type"] + (f", default {default_words(setting['default'])}" if "default" in setting else ", required")
        for name, setting in facts["settings"].items()
    }
    print_table(("", ""), [[key, default_words(value)] for key, value in {**facts, **settings}.items() if key != "settings"])
