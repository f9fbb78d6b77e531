"""The page's tables of figures: accuracy, retention, choices between cues, agreement with the teacher, and whatever else was measured."""

from dataclasses import dataclass

from crossdistill.core.records import CLEAN_ACCURACY
from crossdistill.report import tables
from crossdistill.report.names import NOT_RUN
from crossdistill.report.study_files import StudyFiles
from crossdistill.report.words import percent


@dataclass(frozen=True)
class FigureTable:
    """A table under its heading, with an explanation. The page opens with the tables that most readers want unfolded."""

    heading: str
    note: str
    table: tables.Table
    unfolded: bool


def figure_tables(study: StudyFiles) -> list[FigureTable]:
    """The tables of a study in the order of the page; a metric that no group names stands among the other figures."""
    # The clean accuracy on what a probe kept stands with the probe's accuracy.
    measured = list(dict.fromkeys(row.metric for row in study.results if row.metric not in ("seed_ratio", CLEAN_ACCURACY)))
    groups = {heading: [metric for metric in measured if metric.startswith(starts)] for heading, (starts, _) in _GROUPS.items()}
    grouped = {metric for metrics in groups.values() for metric in metrics}
    groups["Other figures"] = [metric for metric in measured if metric not in grouped]
    found = []
    for heading, metrics in groups.items():
        _, note = _GROUPS.get(heading, ((), ""))
        # On the clean images all cues name nearly always the same class, so that choices mean something on other sets only.
        sets = study.choice_sets if heading == CHOICES and study.choice_sets else None
        table = tables.metric_table(study, heading, metrics, sets)
        if metrics and table:
            note += (_chance_note(study) if heading == ACCURACY else "") + _marks_note(table)
            found.append(FigureTable(heading, note, table, unfolded=heading in (ACCURACY, CHOICES)))
    return found


ACCURACY, CHOICES = "Accuracy", "Choices between cues"

_GROUPS = {
    ACCURACY: (
        ("accuracy",),
        "Mean over the runs, and below it the lowest and the highest run, or the 95 % interval over images where there is one run.",
    ),
    CHOICES: (
        ("cue_choice_", "cue_bias_", "cue_counts_", "shape_bias"),
        "Which cue the answers follow where the cues of one image name different classes, so that no answer is right: "
        "the share of answers that name each. Shape bias is the share of shape among the answers that name shape or texture, and cue bias "
        "the share of each cue among those that name any of the three. Cue counts say how many images the shape bias rests on.",
    ),
    "Retention": (
        ("retention",),
        "The part of the clean accuracy above chance that is left on the probe: 100 % is all of it, 0 % is chance. "
        "It is not measurable for a network that is not clearly above chance on clean images.",
    ),
    "Agreement with the teacher": (
        ("fidelity",),
        "How often a student gives its teacher's answer, right or wrong, and how far its probabilities are from the teacher's "
        "(in nats, 0 is equal). The independent students show how much agreement there is where nothing was taught.",
    ),
}


def _chance_note(study: StudyFiles) -> str:
    chance = study.chance_on("clean")
    return f" A guess is right in {percent(chance)} of cases; figures near that are marked." if chance else ""


def _marks_note(table: tables.Table) -> str:
    """What the small words beside names and figures mean, where they occur."""
    small = {word for cells in table.rows for cell in cells for word in cell.small.split(", ")}
    return "".join(f" {meaning}" for mark, meaning in _MARKS.items() if mark in small)


_MARKS = {
    tables.ALIGNED: "Token-aligned: the probe's tiles are whole patches of this network, which favours it by construction.",
    "signal gate failed": "Signal gate failed: the images tell too little of the label for anything to be read as a bias; greyed.",
    NOT_RUN: "Gate not run: no network shows that the probe can be read there, and none was trained on it to find out.",
}
