"""What a study has left on disk so far, read without a network, an image set or torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from crossdistill.compare import read_table
from crossdistill.compare.gates import TOO_LITTLE_SIGNAL
from crossdistill.core.errors import RunError, StudyError
from crossdistill.core.records import CLEAN_ACCURACY, GateStatus, InheritanceRow, ResultRow, RunRecord, SimilarityRow, TransferRow, subject
from crossdistill.core.store import read_json
from crossdistill.report.names import is_choice
from crossdistill.report.probe_files import Gate, Probe, read_probes, with_controls

R = TypeVar("R", ResultRow, InheritanceRow)


CUES = {"shape", "texture", "colour"}


@dataclass(frozen=True)
class PlannedPair:
    """One teacher and one student of the study, and the methods between them."""

    index: int
    teacher: str
    student: str
    methods: tuple[str, ...]
    controls: Mapping[str, str | None] = field(default_factory=dict)  # arm, and the network that teaches it
    left_out: frozenset[str] = frozenset()  # of the methods, those that were refused for this pair

    @property
    def taught_by(self) -> tuple[str, ...]:
        """The methods by which students are made."""
        return tuple(method for method in self.methods if method not in self.left_out)

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
    left_out: Mapping[str, str] = field(default_factory=dict)  # arms that the plan does without, with the reason
    transfer: tuple[TransferRow, ...] = ()
    similarity: tuple[SimilarityRow, ...] = ()
    weights: Mapping[str, Any] = field(default_factory=dict)  # how the weights of grids were chosen

    @property
    def name(self) -> str:
        return str(self.plan.get("name") or self.folder.name)

    @property
    def chance(self) -> float | None:
        """Accuracy of a guess, 1 / classes; None where the classes are not known."""
        classes = self.plan.get("images", {}).get("class_names") or ()
        return 1 / len(classes) if classes else None

    @property
    def wanted(self) -> Mapping[str, str]:
        """{probe or figure: "up" or "down"}, the changes that the study file calls welcome."""
        return self.plan.get("wanted") or {}

    @property
    def one_teacher_checkpoint(self) -> bool:
        return bool(self.plan.get("one_teacher_checkpoint"))

    @property
    def extra_sets(self) -> tuple[str, ...]:
        """Observed sets that are neither the clean test images nor a probe of them, such as the cue conflict."""
        probes = {"clean", *_probe_names(self.probes, self.results)}
        return tuple(dict.fromkeys(row.probe for row in self.results if row.probe not in probes))

    @cached_property
    def choice_sets(self) -> tuple[str, ...]:
        """The sets whose images hold cues of different classes, as far as choices between them were measured.

        Where the clean images have cues themselves, so has every probe of them, and nearly always of one class: then only the extra
        sets count, and probes that put a cue there.
        """
        measured = dict.fromkeys(row.probe for row in self.results if is_choice(row.metric))
        if "clean" not in measured:
            return tuple(measured)
        own = {*self.extra_sets, *(probe.name for probe in self.probes if probe.reported & CUES)}
        return tuple(name for name in measured if name in own)

    @cached_property
    def figures(self) -> dict[tuple[str, str, str], list[ResultRow]]:
        """{(probe, level, metric): the rows of all networks}."""
        found: dict[tuple[str, str, str], list[ResultRow]] = {}
        for row in self.results:
            found.setdefault((row.probe, row.level, row.metric), []).append(row)
        return found

    @cached_property
    def units(self) -> dict[str, str]:
        """{metric: its unit}."""
        return {row.metric: row.unit for row in self.results}

    @cached_property
    def dropping(self) -> dict[str, str]:
        """{probe: the name of its first level} of the probes that left images out, and have the clean accuracy on the others."""
        found = [(row.probe, row.level) for row in self.results if row.metric == CLEAN_ACCURACY and row.level != "auc"]
        return dict(reversed(found))

    @cached_property
    def chances(self) -> dict[str, float]:
        """{set: what the best constant answer scores on its very images}, where that was recorded."""
        return {row.probe: row.chance for row in self.results if row.chance is not None}

    def chance_on(self, name: str) -> float | None:
        """The accuracy of a guess on a set's images; None where it is not known."""
        return self.chances.get(name, self.chance)

    @cached_property
    def gates(self) -> dict[tuple[str, str], Gate]:
        """{(probe, level): what became of its signal gate}, as far as networks were observed."""
        reasons = {(row.probe, row.level): row.reason for row in self.results if (row.reason or "").startswith(TOO_LITTLE_SIGNAL)}
        places: dict[tuple[str, str], GateStatus] = {(row.probe, row.level): row.signal_gate for row in self.results if row.signal_gate}
        return {place: Gate(status, reasons.get(place)) for place, status in places.items()}

    @cached_property
    def control_of(self) -> dict[str, str]:
        """{control: the probe that it controls}."""
        return {probe.name: probe.control_of for probe in self.probes if probe.control_of}

    @cached_property
    def token_aligned(self) -> set[tuple[str, str, str]]:
        """{(network, probe, level)} where the probe's tiles are whole patches of the network."""
        grids = {record.student: record.patch_grid for record in self.records if record.patch_grid}
        return {
            (network, probe.name, level) for network, grid in grids.items() for probe in self.probes for level in probe.aligned_levels(grid)
        }

    @cached_property
    def level_order(self) -> dict[str, tuple[str, ...]]:
        """The levels of each probe, mildest first; a manifest knows them best, else the table's order is kept.

        A control follows the probe that it controls.
        """
        order: dict[str, list[str]] = {}
        for row in self.results:
            levels = order.setdefault(row.probe, [])
            if row.level not in levels:
                levels.append(row.level)
        for probe in self.probes:
            seen = order.get(probe.name, [])
            order[probe.name] = [*probe.level_names, *(level for level in seen if level not in probe.level_names)]
        return {probe: tuple(order[probe]) for probe in with_controls(list(order), self.control_of)}


def read_study(folder: Path) -> StudyFiles:
    """Read whatever of a study is in `folder`. Raises StudyError where it holds none, or a file is damaged."""
    folder = Path(folder)
    if not (folder / "plan.json").exists() and not (folder / "study.yaml").exists():
        raise StudyError(
            f"{folder} holds no study: neither plan.json nor study.yaml is there. "
            "Give the folder that --out of `crossdistill study run` named."
        )
    plan = read_json(folder / "plan.json") if (folder / "plan.json").exists() else {}
    planned = {
        task["run"] for task in (*plan.get("tasks", ()), *plan.get("ceilings", ()))
    }  # a changed study may have left runs and probes of its former plan
    found = [path.parent for path in sorted(folder.glob("runs/*/record.json"))]
    records, damaged = _records([path for path in found if not planned or path.name in planned])
    probes = read_probes(folder / "probes", plan)
    results, inheritance = _rows(folder / "results.parquet", ResultRow), _rows(folder / "inheritance.parquet", InheritanceRow)
    names = _probe_names(probes, results)
    return StudyFiles(
        folder=folder,
        plan=plan,
        study_text=(folder / "study.yaml").read_text(encoding="utf-8") if (folder / "study.yaml").exists() else "",
        pairs=_pairs(plan, inheritance),
        results=_gated(names, results),
        inheritance=_gated(names, inheritance),
        records=records,
        probes=probes,
        failures=_failures(folder / "failures.json"),
        missing=(*_missing(folder, plan, records), *damaged),
        left_out=plan.get("left_out", {}),
        transfer=_rows(folder / "transfer.parquet", TransferRow),
        similarity=_rows(folder / "similarity.parquet", SimilarityRow),
        weights=read_json(folder / "weights.json") if (folder / "weights.json").exists() else {},
    )


def _records(folders: Sequence[Path]) -> tuple[tuple[RunRecord, ...], tuple[str, ...]]:
    """The records that can be read, and a sentence for each of the others."""
    records, damaged = [], []
    for folder in folders:
        try:
            records.append(RunRecord.load(folder))
        except RunError as error:
            damaged.append(str(error))
    return tuple(records), tuple(damaged)


def _rows(path: Path, row_type: type) -> tuple:
    return tuple(read_table(path, row_type)) if path.exists() else ()


def _probe_names(probes: Sequence[Probe], results: Sequence[ResultRow]) -> set[str]:
    """A probe shows the clean test images again, so that it has a retention; a set of its own has none."""
    return {*(probe.name for probe in probes), *(row.probe for row in results if row.metric == "retention")}


def _gated(names: set[str], rows: Sequence[R]) -> tuple[R, ...]:
    """The rows with a gate for every probe: tables from before there was one say nothing, and it was not run."""
    lacking = [not row.signal_gate and row.probe in names for row in rows]
    return tuple(row.model_copy(update={"signal_gate": "not run"}) if bare else row for row, bare in zip(rows, lacking, strict=True))


def _pairs(plan: Mapping[str, Any], inheritance: Sequence[InheritanceRow]) -> tuple[PlannedPair, ...]:
    """The planned pairs; those of the inheritance table where the plan does not name any."""
    if planned := plan.get("pairs"):
        return tuple(
            PlannedPair(
                p.get("index", i), p["teacher"], p["student"], tuple(p.get("methods", ())), p.get("controls", {}), _refused(plan, p)
            )
            for i, p in enumerate(planned)
        )
    found: dict[tuple[int, str, str], list[str]] = {}
    for row in inheritance:
        methods = found.setdefault((row.pair, row.teacher, row.student), [])
        if row.method not in methods:
            methods.append(row.method)
    return tuple(PlannedPair(*key, tuple(methods)) for key, methods in found.items())


def _refused(plan: Mapping[str, Any], pair: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(m for m in pair.get("methods", ()) if subject(m, pair["teacher"], pair["student"]) in plan.get("left_out", {}))


def _failures(path: Path) -> tuple[tuple[str, str], ...]:
    return tuple((str(f.get("task", "")), str(f.get("message", ""))) for f in read_json(path)) if path.exists() else ()


def _missing(folder: Path, plan: Mapping[str, Any], records: Sequence[RunRecord]) -> tuple[str, ...]:
    """What the plan promised and the folder does not hold, one sentence each."""
    done = {record.run for record in records}
    planned = [task for task in plan.get("tasks", ()) if task.get("run") and task.get("kind") != "warm_up"]
    absent = [str(task.get("label") or task["run"]) for task in planned if task["run"] not in done]
    sentences = [f"{len(absent)} of {len(planned)} networks are not finished: {'; '.join(absent)}."] if absent else []
    if not (folder / "plan.json").exists():
        sentences.append("The plan of the study (plan.json) is missing, so that nobody can say what else should be here.")
    if not (folder / "results.parquet").exists():
        sentences.append("No network has been observed on the test images yet (results.parquet is missing).")
    if not (folder / "inheritance.parquet").exists():
        sentences.append("Students and independents have not been compared yet (inheritance.parquet is missing).")
    return tuple(sentences)
