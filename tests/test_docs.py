"""Pages of the documentation that say what code prints or what a command does: run as they stand."""

import doctest
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from crossdistill.cli import app
from crossdistill.core import registry

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def pages(mark: str) -> list[str]:
    return [page.name for page in sorted(DOCS.glob("*.md")) if mark in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", pages(">>> "))
def test_a_page_prints_what_it_says(page: str) -> None:
    outcome = doctest.testfile(str(DOCS / page), module_relative=False)
    assert outcome.attempted
    assert not outcome.failed


@pytest.mark.parametrize("page", pages("<!-- runs -->"))
def test_a_page_runs_from_top_to_bottom(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder: blocks with a title are written to that file, Python blocks and the commands of bash blocks are run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CROSSDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    before, names = set(sys.modules), {"__name__": "page"}
    registry._entry_points.cache_clear()
    try:
        for language, title, text in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
            if title:
                Path(title).parent.mkdir(parents=True, exist_ok=True)
                Path(title).write_text(text, encoding="utf-8")
            elif language == "python":
                exec(compile(text, page, "exec"), names)
            elif language == "bash":
                run(text)
    finally:
        registry._entry_points.cache_clear()
        for name in set(sys.modules) - before:  # the page's own modules, so that another page may have one of the same name
            if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


def run(commands: str) -> None:
    """The commands of a block, in this process."""
    for command in commands.replace("\\\n", " ").splitlines():
        words = shlex.split(command, comments=True)
        if words[:1] == ["crossdistill"]:
            assert not app(words[1:], standalone_mode=False), command
        elif words[:2] == ["pip", "install"]:
            install(Path(words[-1]))
        else:
            assert not words, f"the tests cannot run: {command}"


def install(package: Path) -> None:
    """What `pip install` leaves beside the code, as far as plug-ins are found by it, without building a package."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = Path(f"{project['name'].replace('-', '_')}-{project['version']}.dist-info")
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = [f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in points.items()) for group, points in project["entry-points"].items()]
    (metadata / "entry_points.txt").write_text("\n\n".join(groups))
    registry._entry_points.cache_clear()
