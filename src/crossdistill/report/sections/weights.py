"""The page's section "How the weights were chosen": what each weight of a grid gave on validation images."""

from collections.abc import Mapping
from typing import Any

from crossdistill.report.study_files import StudyFiles
from crossdistill.report.tables import Cell, Column, Table
from crossdistill.report.words import NO_NUMBER, SPACE, known, listed, percent

TITLE, PLACE = "Weights", 105


def contents(study: StudyFiles) -> dict[str, Any] | None:
    """What the template prints; None where no weight of the study's methods was chosen from a grid."""
    choices = [choice for choice in study.weights.get("choices", ()) if _is_of(study, choice)]
    if not choices:
        return None
    seeds = [str(seed) for seed in study.weights["seeds"]]
    named = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {listed(seeds)}"
    shown = {run["validation_images"] for choice in choices for row in choice["weights"] for run in row["runs"]} - {0}
    images = f"the {shown.pop():,} validation images" if len(shown) == 1 else "validation images"
    return dict(table=weights_table(study, choices), seeds=named, images=images)


def _is_of(study: StudyFiles, choice: Mapping[str, Any]) -> bool:
    """Whether the study has that method between these networks, and its students were trained with the chosen weight."""
    place = (choice["teacher"], choice["student"], choice["arm"])
    if not any(place == (pair.teacher, pair.student, method) for pair in study.pairs for method in pair.methods):
        return False
    own = [record for record in study.records if place == (record.teacher, record.student, record.arm)]
    return all(record.method_settings.get("weight", choice["chosen"]) == choice["chosen"] for record in own)


def weights_table(study: StudyFiles, choices: list[Mapping[str, Any]]) -> Table:
    """A row for each weight of each grid, the chosen one marked."""
    heads = ["Pair", "Method", "Weight", "Validation accuracy", "Chosen"]
    table = Table("The weights that were tried", [Column(name) for name in heads])
    for choice in choices:
        index = next(p.index for p in study.pairs if (p.teacher, p.student) == (choice["teacher"], choice["student"]))
        title = f"{choice['teacher']} \u2192 {choice['student']}"
        for row in choice["weights"]:
            chosen = row["weight"] == choice["chosen"]
            weight = Cell(f"{row['weight']:g}", row["weight"])
            cells = [Cell(title, title), Cell(choice["arm"], choice["arm"]), weight, _accuracy(table, row)]
            table.add([*cells, Cell("chosen" if chosen else "", "chosen" if chosen else "")], pair=index, method=choice["arm"])
    return table


def _accuracy(table: Table, row: Mapping[str, Any]) -> Cell:
    """The mean over the seeds, and each of them; or why there is none."""
    if not known(row["validation_accuracy"]):
        reason = next((run["failed"] for run in row["runs"] if run["failed"]), "no reason was recorded")
        return Cell(NO_NUMBER, None, footnote=table.footnote(reason), mark="muted")
    each = ", ".join(f"seed{SPACE}{run['seed']}: {percent(run['validation_accuracy'])}" for run in row["runs"])
    return Cell(percent(row["validation_accuracy"]), row["validation_accuracy"], each if len(row["runs"]) > 1 else "")
