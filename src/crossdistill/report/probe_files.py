"""What a study folder says of its probes: manifests, previews, and what the plan knows beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from crossdistill.core import registry
from crossdistill.core.errors import UnknownNameError
from crossdistill.core.records import GateStatus
from crossdistill.core.store import read_json
from crossdistill.probes._tiles import token_aligned


class Gate(NamedTuple):
    """What became of a probe's signal gate at a level, and why it failed."""

    status: GateStatus
    reason: str | None = None


@dataclass(frozen=True)
class Probe:
    """One probe set: its manifest, its preview picture where there is one, and what the plan says of it."""

    name: str
    isolates: str
    level_names: tuple[str, ...]
    draws: int
    preview: Path | None
    n_images: int | None = None
    n_kept: int | None = None  # images that the probe could treat
    control_of: str | None = None
    reported: frozenset[str] = frozenset()  # factors that the probe itself gives its images, such as the texture it put there
    not_gated: str | None = None  # why no network could be trained on it for its signal gate
    about: frozenset[str] = frozenset()  # of what its figures tell, such as texture or noise
    tiles: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)  # {level: (height, width) of "tile" and image "size"}

    @property
    def n_dropped(self) -> int:
        """Images that the probe could not treat; 0 where the manifest does not say."""
        return self.n_images - self.n_kept if self.n_images is not None and self.n_kept is not None else 0

    def aligned_levels(self, patch_grid: tuple[int, int]) -> list[str]:
        """The levels whose tiles are whole patches of a network that cuts images into so many (rows, columns)."""
        return [level for level, of in self.tiles.items() if token_aligned(_pair(of["tile"]), _pair(of["size"]), patch_grid)]


def _pair(values: Sequence[int]) -> tuple[int, int]:
    height, width = values
    return height, width


def read_probes(folder: Path, plan: Mapping[str, Any]) -> tuple[Probe, ...]:
    """The probe sets in the folder on which the plan's networks are observed, each control behind the probe that it controls."""
    shown = [path.parent for path in sorted(folder.glob("*/manifest.json"))]
    probes = [_probe(path, plan) for path in shown if _is_planned(path.name, plan)]
    order = with_controls([probe.name for probe in probes], {probe.name: probe.control_of for probe in probes if probe.control_of})
    return tuple(sorted(probes, key=lambda probe: order.index(probe.name)))


def _is_planned(probe_folder: str, plan: Mapping[str, Any]) -> bool:
    """Whether the plan's networks are observed on that probe set; without a plan, every set counts."""
    files = plan.get("observations")
    return files is None or any(file.startswith(f"{probe_folder}-") for file in files.values())


def _probe(folder: Path, plan: Mapping[str, Any]) -> Probe:
    manifest = read_json(folder / "manifest.json")
    facts = plan.get("probes", {}).get(manifest["probe"], {})
    preview = folder / "preview.png"
    return Probe(
        name=manifest["probe"],
        isolates=manifest["isolates"],
        level_names=tuple(level["name"] for level in manifest["levels"]),
        draws=manifest["draws"],
        preview=preview if preview.exists() else None,
        n_images=manifest.get("n_images"),
        n_kept=manifest.get("n_kept"),
        control_of=facts.get("control_of"),
        reported=frozenset(factor for level in manifest["levels"] for factor in level.get("factors", ())),
        not_gated=plan.get("no_ceilings", {}).get(manifest["probe"]),
        about=frozenset(facts["about"] if "about" in facts else _declared(manifest["probe"])),
        tiles=facts.get("tiles", {}),
    )


def _declared(name: str) -> Sequence[str]:
    """What a probe says that it is about, for plans from before they said so; nothing where it is not installed here."""
    try:
        return registry.get("probe", name).facts["about"]
    except UnknownNameError:
        return ()


def with_controls(names: Sequence[str], control_of: Mapping[str, str]) -> list[str]:
    """The names in their order, but each control behind the probe that it controls.

    >>> with_controls(["clean", "mosaic", "scramble", "superpixel"], {"mosaic": "superpixel"})
    ['clean', 'scramble', 'superpixel', 'mosaic']
    """

    def family(name: str) -> list[str]:
        return [name, *(other for control in names if control_of.get(control) == name for other in family(control))]

    return [member for name in names if control_of.get(name) not in names for member in family(name)]
