"""What a study has left on disk so far, read without a network, an image set or torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossdistill.compare import read_table
from crossdistill.core.errors import StudyError
from crossdistill.core.records import InheritanceRow, ResultRow, RunRecord
from crossdistill.core.store import read_json


@dataclass(frozen=True)
class Probe:
    """One probe set: its manifest, and its preview picture where there is one."""

    name: str
    isolates: str
    level_names: tuple[str, ...]
    draws: int
    preview: Path | None


@dataclass(frozen=True)
class PlannedPair:
    """One teacher and one student of the study, and the methods between them."""

    index: int
    teacher: str
    student: str
    methods: tuple[str, ...]
    controls: Mapping[str, str | None] = field(default_factory=dict)  # arm, and the network that teaches it

    @property
    def title(self) -> str:
        return f"{self.teacher} → {self.student}"


@dataclass(frozen=True)
class StudyFiles:
    """A study as it stands on disk. What is not there yet is empty, and named in `missing`."""

    folder: Path
    plan: Mapping[str, Any]
    study_text: str
    pairs: tuple[PlannedPair, ...]
    results: tuple[ResultRow, ...]
    inheritance: tuple[InheritanceRow, ...]
    records: tuple[RunRecord, ...]
    probes: tuple[Probe, ...]
    failures: tuple[tuple[str, str], ...]  # (task, message)
    missing: tuple[str, ...]  # one sentence each

    @property
    def name(self) -> str:
        return str(self.plan.get("name") or self.folder.name)

    @property
    def chance(self) -> float | None:
        """Accuracy of a guess, 1 / classes; None where the classes are not known."""
        classes = self.plan.get("images", {}).get("class_names") or ()
        return 1 / len(classes) if classes else None

    @property
    def one_teacher_checkpoint(self) -> bool:
        return bool(self.plan.get("one_teacher_checkpoint"))

    @property
    def extra_sets(self) -> tuple[str, ...]:
        """Observed sets that are neither the clean test images nor a probe of them, such as the cue conflict."""
        probes = {"clean", *(probe.name for probe in self.probes), *(row.probe for row in self.results if row.metric == "retention")}
        return tuple(dict.fromkeys(row.probe for row in self.results if row.probe not in probes))

    @property
    def level_order(self) -> dict[str, tuple[str, ...]]:
        """The levels of each probe, mildest first; a manifest knows them best, else the table's order is kept."""
        order: dict[str, list[str]] = {}
        for row in self.results:
            levels = order.setdefault(row.probe, [])
            if row.level not in levels:
                levels.append(row.level)
        for probe in self.probes:
            seen = order.get(probe.name, [])
            order[probe.name] = [*probe.level_names, *(level for level in seen if level not in probe.level_names)]
        return {probe: tuple(levels) for probe, levels in order.items()}


def read_study(folder: Path) -> StudyFiles:
    """Read whatever of a study is in `folder`. Raises StudyError where it holds none, or a file is damaged."""
    folder = Path(folder)
    if not (folder / "plan.json").exists() and not (folder / "study.yaml").exists():
        raise StudyError(
            f"{folder} holds no study: neither plan.json nor study.yaml is there. "
            "Give the folder that --out of `crossdistill study run` named."
        )
    plan = read_json(folder / "plan.json") if (folder / "plan.json").exists() else {}
    planned = {task["run"] for task in plan.get("tasks", ())}  # a changed study may have left runs and probes of its former plan
    found = [path.parent for path in sorted(folder.glob("runs/*/record.json"))]
    records = tuple(RunRecord.load(path) for path in found if not planned or path.name in planned)
    shown = [path.parent for path in sorted(folder.glob("probes/*/manifest.json"))]
    results = _rows(folder / "results.parquet", ResultRow)
    inheritance = _rows(folder / "inheritance.parquet", InheritanceRow)
    return StudyFiles(
        folder=folder,
        plan=plan,
        study_text=(folder / "study.yaml").read_text(encoding="utf-8") if (folder / "study.yaml").exists() else "",
        pairs=_pairs(plan, inheritance),
        results=results,
        inheritance=inheritance,
        records=records,
        probes=tuple(_probe(path) for path in shown if _is_planned(path.name, plan)),
        failures=_failures(folder / "failures.json"),
        missing=_missing(folder, plan, records),
    )


def _is_planned(probe_folder: str, plan: Mapping[str, Any]) -> bool:
    """Whether the plan's networks are observed on that probe set; without a plan, every set counts."""
    files = plan.get("observations")
    return files is None or any(file.startswith(f"{probe_folder}-") for file in files.values())


def _rows(path: Path, row_type: type) -> tuple:
    return tuple(read_table(path, row_type)) if path.exists() else ()


def _pairs(plan: Mapping[str, Any], inheritance: Sequence[InheritanceRow]) -> tuple[PlannedPair, ...]:
    """The planned pairs; those of the inheritance table where the plan does not name any."""
    if planned := plan.get("pairs"):
        return tuple(
            PlannedPair(p.get("index", i), p["teacher"], p["student"], tuple(p.get("methods", ())), p.get("controls", {}))
            for i, p in enumerate(planned)
        )
    found: dict[tuple[int, str, str], list[str]] = {}
    for row in inheritance:
        methods = found.setdefault((row.pair, row.teacher, row.student), [])
        if row.method not in methods:
            methods.append(row.method)
    return tuple(PlannedPair(*key, tuple(methods)) for key, methods in found.items())


def _probe(folder: Path) -> Probe:
    manifest = read_json(folder / "manifest.json")
    preview = folder / "preview.png"
    return Probe(
        name=manifest["probe"],
        isolates=manifest["isolates"],
        level_names=tuple(level["name"] for level in manifest["levels"]),
        draws=manifest["draws"],
        preview=preview if preview.exists() else None,
    )


def _failures(path: Path) -> tuple[tuple[str, str], ...]:
    return tuple((str(f.get("task", "")), str(f.get("message", ""))) for f in read_json(path)) if path.exists() else ()


def _missing(folder: Path, plan: Mapping[str, Any], records: Sequence[RunRecord]) -> tuple[str, ...]:
    """What the plan promised and the folder does not hold, one sentence each."""
    done = {record.run for record in records}
    planned = [task for task in plan.get("tasks", ()) if task.get("run") and task.get("kind") != "warm_up"]
    absent = [str(task.get("label") or task["run"]) for task in planned if task["run"] not in done]
    sentences = [f"{len(absent)} of {len(planned)} networks are not finished: {'; '.join(absent)}."] if absent else []
    sentences += [f"The plan leaves out {arm}: {reason}" for arm, reason in plan.get("left_out", {}).items()]
    if not (folder / "plan.json").exists():
        sentences.append("The plan of the study (plan.json) is missing, so that nobody can say what else should be here.")
    if not (folder / "results.parquet").exists():
        sentences.append("No network has been observed on the test images yet (results.parquet is missing).")
    if not (folder / "inheritance.parquet").exists():
        sentences.append("Students and independents have not been compared yet (inheritance.parquet is missing).")
    return tuple(sentences)
