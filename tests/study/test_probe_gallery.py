from pathlib import Path

import pytest

from crossdistill.core import registry
from crossdistill.study.probe_gallery import SIZES, picture, probe_gallery, section

DOCS = Path(__file__).parents[2] / "docs"


def every_probe():
    return [registry.get("probe", name) for name in registry.names("probe")]


def test_the_committed_page_is_what_the_code_says():
    written = probe_gallery(every_probe())
    assert (DOCS / "probes.md").read_text(encoding="utf-8") == written, "docs/probes.md is not what the code says; write it anew: make docs"


@pytest.mark.parametrize("name", registry.names("probe"))
def test_every_probe_has_its_pictures(name):
    for side in SIZES:
        assert (DOCS / "probes" / picture(name, side)).is_file(), "draw it: python docs/probe_pictures.py"


def test_a_probe_is_followed_by_its_controls():
    titles = [line.removeprefix("## ") for line in probe_gallery(every_probe()).splitlines() if line.startswith("## ")]
    assert sorted(titles) == registry.names("probe")
    place = titles.index("scramble")
    assert set(titles[place + 1 : place + 3]) == {"half_scramble", "pulled_tiles"}


def test_an_entry_tells_levels_needs_and_settings():
    entry = section(registry.get("probe", "silhouette"), pictures=False)
    assert "**levels at 32 pixels**: **polarity dark**" in entry
    assert "needs masks" in entry
    assert "| `smallest_area` | number | 0.05 |" in entry
    assert "![" not in entry
