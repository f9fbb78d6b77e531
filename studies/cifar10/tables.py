"""The tables of docs/cifar10.md, as Markdown, from a study's folder alone.

    python studies/cifar10/tables.py studies/cifar10/results                       a study's
    python studies/cifar10/tables.py studies/cifar10/results LOSSLESS_FOLDER        which of its differences hold on other test images

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
UNTAUGHT = ("teacher", "independent")
ORDERED = ("patch_drop", "scramble")  # probes whose levels published work compares between ViTs and CNNs


def main(folder: Path) -> None:
    results = read_table(folder / "results.parquet", ResultRow)
    inheritance = read_table(folder / "inheritance.parquet", InheritanceRow)
    heading("Clean accuracy, and agreement with the teacher of the direction on clean images")
    table(("direction", "network", "accuracy", "agreement with the teacher"), arms(results))
    heading("Which biases separate teacher and independent: retention of clean accuracy, teacher minus independent")
    table(("direction", "probe", "gap"), gaps(inheritance))
    heading("Retention by level, of networks that nobody taught")
    table(("probe", "level", "network", "retention"), levels(results))
    heading("Declared contrasts")
    table(("direction", "method", "probe", "figure", "against", "difference", "p (Holm)", "verdict"), declared(inheritance))
    for against in dict.fromkeys(row.contrast for row in inheritance):
        heading(f"Retention, student minus {against}")
        table(
            ("direction", "probe", "method", "difference", "p (Benjamini-Hochberg)", "verdict"),
            contrasts(inheritance, "retention", against),
        )
    heading("Shape bias, student minus independent")
    table(
        ("direction", "probe", "method", "difference", "p (Benjamini-Hochberg)", "verdict"),
        contrasts(inheritance, "shape_bias", "independent"),
    )
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


def levels(results: Iterable[ResultRow]) -> Iterable[Sequence[str]]:
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in results:
        if row.probe in ORDERED and row.metric == "retention" and row.arm in UNTAUGHT and row.level not in WHOLE and row.value is not None:
            found[row.probe, row.level, f"{row.arm}: {row.student}".removeprefix("teacher: ")].append(row.value)
    for (probe, level, network), values in sorted(found.items()):
        yield probe, level, network, mean(values)


def declared(inheritance: Iterable[InheritanceRow]) -> Iterable[Sequence[str]]:
    for row in inheritance:
        if row.role == "primary":
            difference = points(row.difference, row.low, row.high)
            where = direction(row.teacher, row.student), row.method, row.probe, row.metric, row.contrast
            yield *where, difference, probability(row.p_holm), verdict(row)


def contrasts(inheritance: Iterable[InheritanceRow], metric: str, against: str) -> Iterable[Sequence[str]]:
    for row in sorted(inheritance, key=lambda row: (row.pair, row.probe)):
        if row.contrast == against and row.metric == metric and row.level_or_auc in WHOLE and row.role == "secondary":
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


def other_images(folder: Path, other: Path) -> None:
    """Each difference of retention on whole probes that both folders hold: on the test images of one and of the other."""
    first, second = ({_which(row): row for row in read_table(each / "inheritance.parquet", InheritanceRow)} for each in (folder, other))
    heading("Retention on the test images, and on the other images")
    columns = ("direction", "probe", "method", "against", "test images", "other images", "")
    table(
        columns, (_twice(first[key], second[key]) for key in sorted(first) if key in second and key[4] == "retention" and key[5] in WHOLE)
    )


def _which(row: InheritanceRow) -> tuple[int, str, str, str, str, str]:
    return row.pair, row.probe, row.method, row.contrast, row.metric, row.level_or_auc


def _twice(row: InheritanceRow, other: InheritanceRow) -> Sequence[str]:
    where = direction(row.teacher, row.student), row.probe, row.method, row.contrast
    both = (points(each.difference, each.low, each.high) for each in (row, other))
    flips = row.difference is not None and other.difference is not None and row.difference * other.difference < 0
    told = any(each.low is not None and each.high is not None and each.low * each.high > 0 for each in (row, other))
    return *where, *both, ("sign flips" if told else "sign flips, neither apart from 0") if flips else ""


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
    main(Path(sys.argv[1])) if len(sys.argv) == 2 else other_images(Path(sys.argv[1]), Path(sys.argv[2]))
