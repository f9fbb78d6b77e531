"""The tables of docs/cifar10.md, as Markdown, from a study's folder alone.

    python studies/cifar10/tables.py studies/cifar10/results

Shares are in per cent, differences in points, intervals 95 %: of means over run seeds by Student's t, of contrasts as inheritance.parquet
has them.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from scipy import stats

from crossdistill.compare import read_table
from crossdistill.core.records import InheritanceRow, ResultRow, RunRecord

WHOLE = ("auc", "")


def main(folder: Path) -> None:
    results = read_table(folder / "results.parquet", ResultRow)
    inheritance = read_table(folder / "inheritance.parquet", InheritanceRow)
    heading("Clean accuracy, and agreement with the teacher of the direction on clean images")
    table(("direction", "network", "accuracy", "agreement with the teacher"), arms(results))
    heading("Which biases separate teacher and independent: retention of clean accuracy, teacher minus independent")
    table(("direction", "probe", "gap"), gaps(inheritance))
    heading("Declared contrasts")
    table(("direction", "method", "probe", "figure", "against", "difference", "p (Holm)", "verdict"), declared(inheritance))
    for against in dict.fromkeys(row.contrast for row in inheritance):
        heading(f"Retention, student minus {against}")
        table(("direction", "probe", "method", "difference", "p (Benjamini-Hochberg)", "verdict"), contrasts(inheritance, against))
    heading("Cost")
    table(("direction", "network", "seconds of training", "images a second", "teacher's share"), cost(folder))


def heading(text: str) -> None:
    print(f"\n### {text}\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    for row in (columns, ["---"] * len(columns), *rows):
        print(f"| {' | '.join(row)} |")


def arms(results: Iterable[ResultRow]) -> Iterable[Sequence[str]]:
    """A row for each arm; what nobody taught agrees with the teacher of a direction more or less as well."""
    found: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in results:
        if row.probe == "clean" and row.value is not None and row.metric in ("accuracy", "fidelity_agreement"):
            found[row.student, row.teacher or "", row.arm][row.metric].append(row.value)
    for (student, teacher, arm), values in found.items():
        yield direction(teacher, student), arm, mean(values["accuracy"]), mean(values["fidelity_agreement"])


def gaps(inheritance: Iterable[InheritanceRow]) -> Iterable[Sequence[str]]:
    seen = set()
    for row in inheritance:
        key = row.pair, row.probe
        if row.metric == "retention" and row.contrast == "independent" and row.level_or_auc in WHOLE and key not in seen:
            seen.add(key)
            yield direction(row.teacher, row.student), row.probe, points(row.teacher_gap, row.gap_low, row.gap_high)


def declared(inheritance: Iterable[InheritanceRow]) -> Iterable[Sequence[str]]:
    for row in inheritance:
        if row.role == "primary":
            difference = points(row.difference, row.low, row.high)
            where = direction(row.teacher, row.student), row.method, row.probe, row.metric, row.contrast
            yield *where, difference, probability(row.p_holm), verdict(row)


def contrasts(inheritance: Iterable[InheritanceRow], against: str) -> Iterable[Sequence[str]]:
    for row in sorted(inheritance, key=lambda row: (row.pair, row.probe)):
        if row.contrast == against and row.metric == "retention" and row.level_or_auc in WHOLE and row.role == "secondary":
            difference = points(row.difference, row.low, row.high)
            yield direction(row.teacher, row.student), row.probe, row.method, difference, probability(row.p_bh), verdict(row)


def cost(folder: Path) -> Iterable[Sequence[str]]:
    spent: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.glob("runs/*/record.json")):
        record = RunRecord.load(path.parent)
        for name in ("seconds", "images_per_second", "teacher_share"):
            if name in record.timing:
                spent[direction(record.teacher or "", record.student), record.arm][name].append(record.timing[name])
    for (where, arm), values in sorted(spent.items()):
        seconds, speed, share = (values[name] for name in ("seconds", "images_per_second", "teacher_share"))
        yield where, arm, *(f"{sum(all_runs) / len(all_runs):{form}}" if all_runs else "" for all_runs, form in
                            ((seconds, ".0f"), (speed, ",.0f"), (share, ".0%")))  # fmt: skip


def direction(teacher: str, student: str) -> str:
    return f"{teacher} -> {student}" if teacher else student


def mean(values: Sequence[float]) -> str:
    """The mean over runs, with its interval."""
    if len(values) < 2:
        return f"{100 * values[0]:.1f} (one run)" if values else ""
    low, high = stats.t.interval(0.95, len(values) - 1, loc=sum(values) / len(values), scale=stats.sem(values))
    return f"{100 * sum(values) / len(values):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def points(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return "not measurable"
    return f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def probability(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def verdict(row: InheritanceRow) -> str:
    return row.verdict.replace("_", " ")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
