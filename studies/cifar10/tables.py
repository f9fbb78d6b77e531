"""The tables of docs/cifar10.md, as Markdown, from a study's folder alone.

    python studies/cifar10/tables.py studies/cifar10/results                       a study's
    python studies/cifar10/tables.py studies/cifar10/results LOSSLESS_FOLDER        which of its differences hold on other test images
    python studies/cifar10/tables.py studies/cifar10/dose --by-method              methods side by side, a column each
    python studies/cifar10/tables.py studies/cifar10/dose --between kd-2 kd         one method's students minus another's, run by run

Shares are in per cent, differences in points, intervals 95 %: of means over run seeds by Student's t, of contrasts as inheritance.parquet
has them.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from scipy import stats

from crossdistill.compare import read_table
from crossdistill.core.records import InheritanceRow, ResultRow, RunRecord

WHOLE = ("auc", "")
UNTAUGHT = ("teacher", "independent")
ORDERED = ("patch_drop", "scramble")  # probes whose levels published work compares between ViTs and CNNs
AGAINST = ("independent", "shuffled_teacher", "control_teacher", "twin")
SIDES = ("side_with_teacher", "side_with_teacher_wrong")
MARKS = {"inherited": "**{}**", "moved_away": "*{}*", "equivalent": "{} =", "nothing_to_inherit": "{} (no gap)"}


def main(folder: Path) -> None:
    results = read_table(folder / "results.parquet", ResultRow)
    inheritance = read_table(folder / "inheritance.parquet", InheritanceRow)
    acting(results, inheritance)
    heading("Declared contrasts")
    table(("direction", "method", "probe", "figure", "against", "difference", "p (Holm)", "verdict"), declared(inheritance))
    for metric in ("retention", "shape_bias"):
        for teacher, student in dict.fromkeys((row.teacher, row.student) for row in inheritance):
            there = [row for row in inheritance if (row.teacher, row.student) == (teacher, student)]
            heading(f"{metric}, {direction(teacher, student)}: what separates the teacher, and the student minus each of its references")
            against = [name for name in AGAINST if any(row.contrast == name for row in there)]
            table(("probe", "teacher minus independent", "method", *against), moved(there, metric, against))
    heading("Retention by level, of networks that nobody taught")
    table(("probe", "level", "network", "retention"), levels(results))
    cost(folder)


def acting(results: Sequence[ResultRow], inheritance: Sequence[InheritanceRow]) -> None:
    """Did the methods act: accuracy and fidelity."""
    heading("Clean accuracy, and agreement with the teacher of the direction on clean images")
    table(("direction", "network", "accuracy", "agreement with the teacher"), arms(results))
    heading("Where teacher and independent disagree: how much oftener the student sides with the teacher than a second independent does")
    table(("direction", "method", "all", "of which the teacher is wrong"), sides(inheritance))


def heading(text: str) -> None:
    print(f"\n### {text}\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    for row in (columns, ["---"] * len(columns), *rows):
        print(f"| {' | '.join(row)} |")


def arms(results: Sequence[ResultRow]) -> Iterable[Sequence[str]]:
    """A row for each arm; what nobody taught agrees more or less, too, with the teacher whose student it is compared with."""
    untaught = {(row.student, row.arm) for row in results if not row.teacher}
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in results:
        if row.probe == "clean" and row.value is not None and row.metric in ("accuracy", "fidelity_agreement"):
            teacher = "" if (row.student, row.arm) in untaught else row.teacher or ""
            found[direction(teacher, row.student), row.arm][row.metric].append(row.value)
    for key, values in found.items():
        yield *key, mean(values["accuracy"]), mean(values["fidelity_agreement"])


def sides(inheritance: Iterable[InheritanceRow]) -> Iterable[Sequence[str]]:
    found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for row in inheritance:
        if row.probe == "clean" and row.metric in SIDES:
            found[direction(row.teacher, row.student), row.method][row.metric] = points(row.difference, row.low, row.high)
    for key, values in found.items():
        yield *key, *(values[name] for name in SIDES)


def moved(inheritance: Iterable[InheritanceRow], metric: str, against: Sequence[str]) -> Iterable[Sequence[str]]:
    """Over all levels of each probe: bold is toward the teacher, italics away from it, "=" within the margin; the rest is not told."""
    found: dict[tuple[str, str], dict[str, InheritanceRow]] = defaultdict(dict)
    for row in inheritance:
        if row.metric == metric and row.level_or_auc in WHOLE and row.role == "secondary":
            found[row.probe, row.method][row.contrast] = row
    for (probe, method), rows in sorted(found.items()):
        first = rows["independent"]
        differences = (
            MARKS.get(row.verdict, "{}").format(points(row.difference, row.low, row.high)) if (row := rows.get(name)) else ""
            for name in against
        )
        yield probe, points(first.teacher_gap, first.gap_low, first.gap_high), method, *differences


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


def cost(folder: Path) -> None:
    spent: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.glob("runs/*/record.json")):
        record = RunRecord.load(path.parent)
        for name in ("seconds", "images_per_second"):
            if name in record.timing:
                spent[direction(record.teacher or "", record.student), record.arm][name].append(record.timing[name])
    heading("Cost")
    table(
        ("direction", "network", "seconds of training", "images a second"),
        ((*key, *(f"{sum(runs) / len(runs):,.0f}" for runs in values.values())) for key, values in sorted(spent.items())),
    )


def other_images(folder: Path, other: Path) -> None:
    """Differences that both folders hold, on the test images of one and of the other: declared ones, and of the biases on whole probes."""
    first, second = ({_which(row): row for row in read_table(each / "inheritance.parquet", InheritanceRow)} for each in (folder, other))
    heading("Retention, shape bias and declared contrasts on the test images, and on the other images")
    table(
        ("direction", "figure", "probe", "method", "against", "test images", "other images", ""),
        (_twice(first[key], second[key]) for key in sorted(first) if key in second and _told(first[key])),
    )


def _told(row: InheritanceRow) -> bool:
    bias = row.metric in ("retention", "shape_bias") and row.level_or_auc in WHOLE and row.contrast in AGAINST
    return row.role == "primary" or bias


def _which(row: InheritanceRow) -> tuple[int, str, str, str, str, str]:
    return row.pair, row.metric, row.probe, row.method, row.contrast, row.level_or_auc


def _twice(row: InheritanceRow, other: InheritanceRow) -> Sequence[str]:
    where = direction(row.teacher, row.student), row.metric, row.probe, row.method, row.contrast
    both = (points(each.difference, each.low, each.high) for each in (row, other))
    flips = row.difference is not None and other.difference is not None and row.difference * other.difference < 0
    told = any(each.low is not None and each.high is not None and each.low * each.high > 0 for each in (row, other))
    return *where, *both, ("sign flips" if told else "sign flips, neither apart from 0") if flips else ""


def by_method(folder: Path) -> None:
    """Methods side by side: whether they acted, student minus independent and minus twin on whole probes, and cost."""
    inheritance = read_table(folder / "inheritance.parquet", InheritanceRow)
    acting(read_table(folder / "results.parquet", ResultRow), inheritance)
    found: dict[tuple[str, str], dict[tuple[str, str], dict[str, InheritanceRow]]] = defaultdict(lambda: defaultdict(dict))
    for row in inheritance:
        if row.contrast in ("independent", "twin") and _compared(row):
            found[row.contrast, direction(row.teacher, row.student)][row.metric, row.probe][row.method] = row
    for (against, where), figures in sorted(found.items()):
        methods = list(dict.fromkeys(name for rows in figures.values() for name in rows))
        heading(f"Student minus {against}, {where}")
        table(
            ("figure", "probe", *methods), ((*key, *(_cell(rows.get(name)) for name in methods)) for key, rows in sorted(figures.items()))
        )
    cost(folder)


def between(folder: Path, first: str, second: str) -> None:
    """Students of one method minus those of another with the same run seed, by Student's t over the runs."""
    values: dict[tuple[str, str, str], dict[tuple[str, int], float]] = defaultdict(dict)
    for row in read_table(folder / "results.parquet", ResultRow):
        if row.arm in (first, second) and row.value is not None and row.split == "test" and _compared(row):
            values[direction(row.teacher or "", row.student), row.metric, row.probe][row.arm, row.seed] = row.value
    heading(f"Students of {first} minus those of {second}")
    table(
        ("direction", "figure", "probe", f"{first} minus {second}"),
        ((*key, _paired(runs, first, second)) for key, runs in sorted(values.items())),
    )


def _compared(row: InheritanceRow | ResultRow) -> bool:
    level = row.level_or_auc if isinstance(row, InheritanceRow) else row.level
    return level in WHOLE and (row.metric in ("retention", "shape_bias") or (row.probe, row.metric) == ("clean", "accuracy"))


def _cell(row: InheritanceRow | None) -> str:
    return points(row.difference, row.low, row.high) if row else ""


def _paired(runs: dict[tuple[str, int], float], first: str, second: str) -> str:
    differences = [value - runs[second, seed] for (arm, seed), value in sorted(runs.items()) if arm == first and (second, seed) in runs]
    if len(differences) < 2:
        return ""
    return points(*with_interval(differences))


def direction(teacher: str, student: str) -> str:
    return f"{teacher} -> {student}" if teacher else student


def mean(values: Sequence[float]) -> str:
    """The mean over runs, with its interval."""
    if len(values) < 2:
        return f"{100 * values[0]:.1f} (one run)" if values else ""
    center, low, high = with_interval(values)
    return f"{100 * center:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def with_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and both ends of its interval, of at least two runs."""
    center = sum(values) / len(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=center, scale=stats.sem(values))
    return center, low, high


def points(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return "not measurable"
    return f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def probability(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def verdict(row: InheritanceRow) -> str:
    return row.verdict.replace("_", " ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("--by-method", action="store_true")
    parser.add_argument("--between", nargs=2)
    given = parser.parse_args()
    if given.other:
        other_images(given.folder, given.other)
    elif given.between:
        between(given.folder, *given.between)
    else:
        (by_method if given.by_method else main)(given.folder)
