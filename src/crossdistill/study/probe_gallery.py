"""The gallery of probes as Markdown: docs/probes.md, with the pictures beside it, and what `crossdistill list probes NAME` shows."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from crossdistill.core.registry import Plugin, describe
from crossdistill.core.setting_words import default_words, joined
from crossdistill.probes._supplies import HOW_TO_GET

SIZES = (32, 224)  # pixels a side, of the pictures and of the levels that are shown

INTRODUCTION = """\
# Probes

<!-- Generated from the code: make docs -->

A probe turns labelled images into a test set that isolates one cue. It is built once from the test images, in their own
pixels, before any network resizes them; every random decision about an image is keyed by the image's row, so that neither the
batch nor the subset nor the number of processes changes a byte. The set stands on disk with labels, ids and a SHA-256 of every
array, and is refused when one of them was changed.

    crossdistill probes preview --images folder:photos --out pictures          # what they do to a few of your images
    crossdistill probes build --images cifar10 --probes scramble --out sets    # all of it: arrays, manifest, preview
    crossdistill probes build --images cifar10 --format parquet --out sets     # also png-zip or imagefolder

In a study the probes marked *core* are shown where the study file names none; the others are named:

```yaml
probes: [scramble, pulled_tiles, {name: silhouette, masks: grabcut}, {name: low_pass, levels: [{radius: 4}]}]
```

**Before you read a figure.** A probe may take more than the cue away. The *signal gate* asks, level by level, whether some
network answers at least 20 points above the largest class's share (and trains one on the probe where no network of the study
does); a level that fails is greyed. A *control* shows what the treatment does without the cue: read a probe beside its control.
Levels marked *token-aligned* cut the image exactly along a ViT's patches and favour that ViT by construction.

**What it costs.** A level of 10,000 images of 32 pixels takes well under a second for most probes and 30 MB on disk, about 7 s
for superpixels, some minutes for GrabCut's masks and about an hour for `stylized` (2 cores); the full preset of `corrupt` has
75 levels. An interrupted build goes on with the same command.

The pictures show scikit-image's photographs, at 32 and at 224 pixels: clean first, then each level of the full preset.
"""


def probe_gallery(plugins: Iterable[Plugin]) -> str:
    """The whole page: probes in the order of their names, each followed by its controls."""
    known = {plugin.name: plugin for plugin in plugins}
    own = [plugin for plugin in known.values() if not plugin.facts["control_of"]]
    ordered = [one for plugin in own for one in (plugin, *(c for c in known.values() if c.facts["control_of"] == plugin.name))]
    glance = "\n".join(["| probe | shown by default | what it isolates |", "| --- | --- | --- |", *(_glance(plugin) for plugin in ordered)])
    return "\n\n".join([INTRODUCTION.strip(), glance, *(section(plugin) for plugin in ordered)]) + "\n"


def section(plugin: Plugin, *, pictures: bool = True) -> str:
    """One probe: what it isolates, its docstring, facts, settings and, where wanted, links to its pictures."""
    settings = [
        f"| `{name}` | {_cell(setting['type'])} | {_cell(default_words(setting['default'])) if 'default' in setting else 'required'} |"
        for name, setting in describe(plugin)["settings"].items()
    ]
    parts = [
        f"## {plugin.name}",
        f"*{plugin.summary}*",
        f"**{plugin.facts['isolates']}**",
        inspect.getdoc(plugin.function) or "",
        "\n".join(f"- **{name}**: {words}" for name, words in _facts(plugin).items()),
        "\n".join(["| setting | takes | default |", "| --- | --- | --- |", *settings]) if settings else "",
        "\n\n".join(f"![{plugin.name} at {side} pixels](probes/{picture(plugin.name, side)})" for side in SIZES) if pictures else "",
    ]
    return "\n\n".join(part for part in parts if part)


def picture(name: str, side: int) -> str:
    """The file name of a probe's picture in docs/probes."""
    return f"{name}-{side}.webp"


def _facts(plugin: Plugin) -> dict[str, str]:
    facts = plugin.facts
    found = {f"levels at {side} pixels": _levels(plugin, side) for side in SIZES}
    draws = facts["draws"]
    found["draws"] = "1" if set(draws.values()) == {1} else joined([f"{n} ({preset})" for preset, n in draws.items()], "and")
    if facts["null"] is not None:
        found["level that changes nothing"] = _level(facts["null"])
    if facts["control_of"]:
        found["control of"] = f"[{facts['control_of']}](#{facts['control_of']})"
    for name in plugin.inputs:
        if name in HOW_TO_GET:
            found[f"needs {name}"] = HOW_TO_GET[name]
    return found


def _levels(plugin: Plugin, side: int) -> str:
    presets = (plugin.facts["quick"], plugin.facts["full"])
    quick, full = (levels if isinstance(levels, list) else levels((side, side)) for levels in presets)
    if len(full) > 12:
        return f"{len(full)} (full); quick: {'; '.join(_level(level) for level in quick)}"
    return "; ".join(f"**{_level(level)}**" if level in quick else _level(level) for level in full) + " (bold: quick)"


def _level(level: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in level.items())


def _glance(plugin: Plugin) -> str:
    name = f"[{plugin.name}](#{plugin.name})"
    shown = "yes" if plugin.facts["core"] else f"control of {plugin.facts['control_of']}" if plugin.facts["control_of"] else "no"
    return f"| {name} | {shown} | {_cell(_first_sentence(plugin.facts['isolates']))} |"


def _first_sentence(text: str) -> str:
    return text.split(": ")[0].split(". ")[0].rstrip(".")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
