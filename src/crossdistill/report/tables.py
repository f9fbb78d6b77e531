"""The tables of the page: figures averaged over run seeds, with their spread, and reasons where there is no figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from crossdistill.core.records import CLEAN_ACCURACY, Against, InheritanceRow, ResultRow
from crossdistill.report.names import NOT_RUN, metric_words, plain
from crossdistill.report.probe_files import Gate
from crossdistill.report.study_files import PlannedPair, StudyFiles
from crossdistill.report.words import NO_NUMBER, SPACE, count, figure, known


@dataclass(frozen=True)
class Cell:
    """What stands in a cell. `sort` orders the column, `small` is the second line, `footnote` numbers a reason below the table."""

    text: str
    sort: float | str | None = None
    small: str = ""
    footnote: int | None = None
    mark: str = ""  # a style: "muted", "low", a verdict


@dataclass(frozen=True)
class Column:
    """A column's head, and a second line below it; `facts` as those of a row, where the whole column belongs to one method or pair."""

    name: str
    small: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Table:
    """A table with its columns, rows of cells and numbered reasons.

    `facts` says by place of the row what it belongs to ({"probe": "scramble", "method": "kd", "pair": "0", "seed": "3"}, only those
    that apply); the page's filter hides rows by them.
    """

    caption: str
    columns: list[Column]
    rows: list[list[Cell]] = field(default_factory=list)
    footnotes: list[str] = field(default_factory=list)
    facts: dict[int, Mapping[str, str]] = field(default_factory=dict)

    def add(self, cells: list[Cell], **facts: object) -> None:
        """Append a row that belongs to a `probe`, `method`, `pair` or `seed`: `table.add(cells, probe="scramble", pair=0)`."""
        self.facts[len(self.rows)] = {name: str(value) for name, value in facts.items()}
        self.rows.append(cells)

    def is_text(self, column: int) -> bool:
        """Whether the column holds words, which stand on the left, and no figures."""
        return any(isinstance(row[column].sort, str) for row in self.rows)

    def footnote(self, text: str) -> int:
        """The number of this reason, which is added where it is new."""
        if text not in self.footnotes:
            self.footnotes.append(text)
        return self.footnotes.index(text) + 1


@dataclass(frozen=True)
class Series:
    """The networks of one kind in one pair: its teacher, its independent students, or the students of one method."""

    name: str
    arm: str
    network: str
    teacher: str | None

    def holds(self, row: ResultRow) -> bool:
        """Whether the row belongs to this series; an independent's own figures name no teacher, its agreement with a teacher does."""
        same = row.arm == self.arm and row.student == self.network
        return same and (row.teacher == self.teacher or row.teacher is None)


@dataclass(frozen=True)
class Figure:
    """The mean over runs. `low` and `high` are the lowest and the highest run, or the interval over images where there is one run."""

    value: float | None
    low: float | None
    high: float | None
    n_runs: int
    unit: str
    reason: str | None


def series_of(pair: PlannedPair) -> list[Series]:
    """Teacher, independent and each method of a pair, in that order."""
    return [
        Series(f"teacher {pair.teacher}", "teacher", pair.teacher, None),
        Series(f"independent {pair.student}", "independent", pair.student, pair.teacher),
        *(Series(method, method, pair.student, pair.teacher) for method in pair.taught_by),
    ]


def controls_of(pair: PlannedPair) -> list[Series]:
    """The control arms of a pair. Like an independent, one that nobody taught is compared with the pair's teacher."""
    return [Series(arm, arm, pair.student, teacher or pair.teacher) for arm, teacher in pair.controls.items()]


def mean_figure(rows: Sequence[ResultRow]) -> Figure | None:
    """The figure of several runs on one level; None where no run was observed."""
    if not rows:
        return None
    measured = [row for row in rows if row.status == "ok" and known(row.value)]
    values = [row.value for row in measured if row.value is not None]
    if not values:
        return Figure(None, None, None, 0, _unit(rows[0]), next((row.reason for row in rows if row.reason), "no reason was recorded"))
    low, high = (min(values), max(values)) if len(values) > 1 else (measured[0].low, measured[0].high)
    return Figure(fmean(values), low, high, len(values), _unit(rows[0]), partly_measured(rows) or measured[0].reason)


def partly_measured(rows: Sequence[ResultRow]) -> str | None:
    """In how many runs a figure was not measurable, and why in the first of them; None where it was in all, or nobody says why."""
    lost = [row for row in rows if row.status != "ok" or not known(row.value)]
    reason = next((row.reason for row in lost if row.reason), None)
    return f"not measurable in {len(lost)} of {count(len(rows), 'run')}: {reason}" if reason else None


def _unit(row: ResultRow) -> str:
    """The figure's unit; what is left of an accuracy beyond another is a difference, whatever its table says."""
    return "difference" if row.metric == "accuracy_residual_share" else row.unit


def find_figure(study: StudyFiles, series: Series, probe: str, level: str, metric: str) -> Figure | None:
    """The mean figure of a series of networks; None where it was not observed."""
    wanted = (probe, level, metric)
    return mean_figure([row for row in study.figures.get(wanted, ()) if series.holds(row)])


def clean_figure(study: StudyFiles, series: Series, probe: str) -> Figure | None:
    """The clean accuracy beside which a probe's stands: over the images that it kept, where it left some out."""
    if probe in study.dropping:
        return find_figure(study, series, probe, study.dropping[probe], CLEAN_ACCURACY)
    return find_figure(study, series, "clean", "", "accuracy")


def metric_table(
    study: StudyFiles, heading: str, metrics: Sequence[str], sets: Sequence[str] | None = None, *, averaged: bool = False
) -> Table | None:
    """Rows: sets and their levels (and figures, where `metrics` holds several); columns: the networks. None where nothing was observed.

    `averaged`: of a probe with several levels only the mean over them.
    """
    columns = _networks(study, metrics)
    if not columns:
        return None
    several = len(metrics) > 1
    heads = [Column(series.name, _taught(pair, series), _whose(study, series)) for pair, series in columns]
    table = Table(heading, [Column("Figure" if several else "Images")] + heads)
    order = {probe: levels for probe, levels in study.level_order.items() if sets is None or probe in sets}
    levels = [(p, level) for p, of in order.items() for level in of if not averaged or level == "auc" or "auc" not in of]
    for metric in metrics:
        for probe, level in levels:
            if metric == "accuracy" and level == study.dropping.get(probe):
                figures = [clean_figure(study, series, probe) for _, series in columns]
                table.add(_figure_row(table, [plain(probe), "the same images, clean"], figures, study.chance_on(probe), None), probe=probe)
            figures = [find_figure(study, series, probe, level, metric) for _, series in columns]
            if any(figures):
                control = f"control of {plain(study.control_of[probe])}" if probe in study.control_of else ""
                names = [metric_words(metric)] * several + [plain(probe), level_name(level), control]
                chance = study.chance_on(probe) if metric == "accuracy" else None
                row = _figure_row(table, names, figures, chance, study.gates.get((probe, level)))
                aligned = [False, *((series.network, probe, level) in study.token_aligned for _, series in columns)]
                table.add([_aligned(cell) if whole else cell for cell, whole in zip(row, aligned, strict=True)], probe=probe)
    return table if table.rows else None


ALIGNED = "token-aligned"


def _aligned(cell: Cell) -> Cell:
    """The cell with the remark that the probe's tiles are whole patches of this network."""
    return replace(cell, small=f"{cell.small}, {ALIGNED}" if cell.small else ALIGNED)


def _figure_row(
    table: Table, names: list[str], figures: list[Figure | None], chance: float | None, gate: Gate | None
) -> list[Cell]:  # fmt: skip
    """A row of figures; a remark that all of them share stands at the head of the row, once. Without signal all is grey."""
    if gate and gate.status == "failed":
        head = [*names, "signal gate failed"]
        cells = [replace(_figure_cell(table, found, chance), mark="muted") for found in figures]
        return [replace(_head_cell(table, head, gate.reason), mark="muted"), *cells]
    if gate and gate.status == "not run":
        names = [*names, NOT_RUN]
    remarks = {found.reason for found in figures if found}
    shared = remarks.pop() if len(remarks) == 1 and all(found is None or found.value is not None for found in figures) else None
    if shared:
        figures = [replace(found, reason=None) if found else None for found in figures]
    return [_head_cell(table, names, shared)] + [_figure_cell(table, found, chance) for found in figures]


def _head_cell(table: Table, names: list[str], remark: str | None) -> Cell:
    place = len(table.rows)  # keeps the order of the page when a reader sorts back
    return Cell(names[0], place, ", ".join(name for name in names[1:] if name), table.footnote(remark) if remark else None)


def _taught(pair: PlannedPair, series: Series) -> str:
    """Who taught whom, below a column's name; only the network where nobody taught it, and "" where the name holds it."""
    if series.arm in ("teacher", "independent"):
        return ""
    teacher = pair.controls.get(series.arm, pair.teacher)
    return f"{teacher} → {series.network}" if teacher else series.network


def _whose(study: StudyFiles, series: Series) -> dict[str, str]:
    """The pairs that a column belongs to, several where they share the network, and its method, of which controls are part."""
    own = [(p, s) for p in study.pairs for s in (*series_of(p), *controls_of(p)) if (s.arm, s.network) == (series.arm, series.network)]
    method = series.arm.partition("+")[0]
    taught = any(method in pair.methods for pair, _ in own)
    pairs = [p.index for p, s in own if not taught or s.teacher == series.teacher]
    return {"pair": " ".join(map(str, pairs)), **({"method": method} if taught else {})}


def _networks(study: StudyFiles, metrics: Sequence[str]) -> list[tuple[PlannedPair, Series]]:
    """The networks of all pairs that have a figure. An independent taught by nobody stands there once, however many pairs share it."""
    rows = [row for row in study.results if row.metric in metrics]
    found: dict[tuple[str, str, str | None], tuple[PlannedPair, Series]] = {}
    for pair in study.pairs:
        for series in (*series_of(pair), *controls_of(pair)):
            own = [row for row in rows if series.holds(row)]
            if own:
                found.setdefault((series.arm, series.network, own[0].teacher), (pair, series))
    return list(found.values())


def level_name(level: str) -> str:
    return "all levels" if level == "auc" else level


def _figure_cell(table: Table, found: Figure | None, chance: float | None) -> Cell:
    if found is None:
        return Cell("not observed", None, mark="muted")
    if found.value is None:
        return Cell(NO_NUMBER, None, footnote=table.footnote(found.reason or ""), mark="muted")
    near_chance = chance is not None and known(found.low) and found.low <= chance  # type: ignore[operator]
    small = (
        f"{_bare(found.low, found.unit)}{SPACE}to{SPACE}{_bare(found.high, found.unit)}" if known(found.low) and known(found.high) else ""
    )
    footnote = table.footnote(found.reason) if found.reason else None
    return Cell(
        figure(found.value, found.unit),
        found.value,
        f"{small}, near chance" if near_chance else small,
        footnote,
        "low" if near_chance else "",
    )


def _bare(value: float | None, unit: str) -> str:
    """A limit without its unit, which the figure above it carries."""
    return figure(value, unit).split(SPACE)[0]


def in_words(study: StudyFiles, pair: PlannedPair, row: InheritanceRow) -> str:
    """The levels behind a contrast: "teacher vit 61.0 %, kd 34.2 %, independent cnn 30.0 %"; empty where they are not known."""
    arms = _ARMS.get(row.contrast, ())
    wanted = ["teacher", *(arm.format(row.method) for arm in arms)]
    series = [s for s in (*series_of(pair), *controls_of(pair)) if s.arm in wanted]
    found = [(s.name, find_figure(study, s, row.probe, row.level_or_auc, row.metric)) for s in series]
    return ", ".join(f"{name} {figure(value.value, value.unit)}" for name, value in found if value and value.value is not None)


_ARMS: Mapping[Against, tuple[str, ...]] = {
    "independent": ("{}", "independent"),
    "accuracy_matched": ("{}", "independent"),
    "twin": ("{}", "{}+twin"),
    "shuffled_teacher": ("{}", "{}+shuffled_teacher"),
    "control_teacher": ("{}+matched_teacher", "{}+control_teacher"),
    "control_teacher_adjusted": ("{}+matched_teacher", "{}+control_teacher"),
}
"""The arms that a contrast compares, by the method's label."""
