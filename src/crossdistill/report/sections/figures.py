"""The page's tables of figures: accuracy, retention, choices between cues, agreement with the teacher, and whatever else was measured."""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from crossdistill.core.records import CLEAN_ACCURACY
from crossdistill.report import tables
from crossdistill.report.names import NOT_RUN
from crossdistill.report.study_files import StudyFiles
from crossdistill.report.words import percent

TITLE, PLACE = "Figures", 30


def contents(study: StudyFiles) -> dict[str, Any]:
    """What the template prints."""
    return dict(figure_tables=figure_tables(study))


@dataclass(frozen=True)
class FigureTable:
    """A table under its heading, with an explanation. The page opens with the tables that most readers want unfolded."""

    heading: str
    note: str
    table: tables.Table
    unfolded: bool


def figure_tables(study: StudyFiles) -> list[FigureTable]:
    """The tables of a study in the order of the page; a figure that no group names stands among the others."""
    # The clean accuracy on what a probe kept stands with the probe's accuracy.
    measured = list(dict.fromkeys(row.metric for row in study.results if row.metric not in ("seed_ratio", CLEAN_ACCURACY)))
    grouped: dict[str, list[str]] = {heading: [] for heading in (*_GROUPS, OTHER)}
    for metric in measured:
        if not _OF_A_HEAD.search(metric):
            grouped[_heading(metric)].append(metric)
    found = []
    for heading, metrics in grouped.items():
        group = _GROUPS.get(heading, Group((), ""))
        # On the clean images all cues name nearly always the same class, so that choices mean something on other sets only.
        sets = study.choice_sets if heading == CHOICES and study.choice_sets else None
        table = tables.metric_table(study, heading, metrics, sets, averaged=group.averaged)
        if metrics and table:
            note = group.note + (_chance_note(study) if heading == ACCURACY else "") + _marks_note(table)
            note += " Of probes with several levels the mean over them." if group.averaged else ""
            found.append(FigureTable(heading, note, table, unfolded=heading in (ACCURACY, CHOICES)))
    return found


class Group(NamedTuple):
    """The figures of one table: how their names start, what they are, and whether of a probe only the mean over its levels is shown."""

    starts: tuple[str, ...]
    note: str
    averaged: bool = False


ACCURACY, CHOICES, OTHER = "Accuracy", "Choices between cues", "Other figures"

_OF_A_HEAD = re.compile(r"_head\d+$")  # attention distance: the page shows layers, and results.parquet their heads

_GROUPS = {
    ACCURACY: Group(
        ("accuracy",),
        "Mean over the runs, and below it the lowest and the highest run, or the 95 % interval over images where there is one run.",
    ),
    CHOICES: Group(
        ("cue_choice_", "cue_bias_", "cue_counts_", "shape_bias"),
        "Which cue the answers follow where the cues of one image name different classes, so that no answer is right: "
        "the share of answers that name each. Shape bias is the share of shape among the answers that name shape or texture, and cue bias "
        "the share of each cue among those that name any of the three. Cue counts say how many images the shape bias rests on.",
    ),
    "Accuracy beyond clean accuracy": Group(
        ("accuracy_residual",),
        "How far a network lies above the line of probe accuracy by clean accuracy through the independents of all trainings, short and "
        "full, in points and in logits: a network that is better all round lies on the line. Not measurable outside the range of "
        "clean accuracies that the line was drawn through.",
        averaged=True,
    ),
    "Retention": Group(
        ("retention", "conditional_retention"),
        "The part of the clean accuracy above chance that is left on the probe: 100 % is all of it, 0 % is chance. "
        "It is not measurable for a network that is not clearly above chance on clean images. Beside it, of the images that are "
        "answered rightly when clean, the share that stays right, and what the same answers would score if they were dealt out blindly.",
    ),
    "Invariance": Group(
        ("agreement_kappa", "js_invariance"),
        "How little the answers change from a clean image to its probe, right or wrong. Kappa is 1 where no answer changes and 0 "
        "where answers agree as often as blind ones would. Of the probabilities, at a temperature fitted on clean validation images, "
        "100 % is no change and 0 % a change as large as from one image to another.",
        averaged=True,
    ),
    "Agreement with the teacher": Group(
        ("fidelity",),
        "How often a student gives its teacher's answer, right or wrong, and how far its probabilities are from the teacher's "
        "(in nats, 0 is equal). The independent students show how much agreement there is where nothing was taught.",
    ),
    "Errors shared with the teacher": Group(
        ("error_consistency", "consistency_ceiling", "same_wrong_label", "side_with_teacher"),
        "Error consistency is how much more often network and teacher are right or wrong together than two networks of their accuracies "
        "that have nothing to do with each other: 0 is chance. Networks of different accuracy cannot reach 1; the largest value that "
        "they allow stands beside it. Siding: of the images that teacher and independent answer differently, the share on which "
        "the teacher's answer is taken.",
        averaged=True,
    ),
    "Calibration": Group(
        ("calibration",),
        "Whether a network is right as often as it is sure, at a temperature fitted on clean validation images. 0 is best in all. The "
        "calibration error is biased upward where images are few: compare it between networks on equal numbers of images only.",
        averaged=True,
    ),
    "Receptive field": Group(
        ("effective_receptive_field",),
        "How much of the image the centre of the last map depends on: the side, as a share of the image's, of the smallest centred "
        "square that holds 50 and 99 % of the gradient. A gradient spread evenly gives 70.7 and 99.5 %.",
    ),
    "Attention distance by layer": Group(
        ("mean_attention_distance",),
        "How far attention looks, over what uniform attention would give: 1 is a layer that looks everywhere alike, and less is local. "
        "Mean over a layer's heads. Attention is not influence: the receptive field measures that, in CNNs too.",
    ),
}
"""Tables by their heading, in the order of the page; the longest start that a figure's name has decides."""


def _heading(metric: str) -> str:
    """The heading of the group that fits best.

    >>> _heading("accuracy"), _heading("accuracy_residual_share"), _heading("confidence")
    ('Accuracy', 'Accuracy beyond clean accuracy', 'Other figures')
    """
    fitting = {len(start): heading for heading, group in _GROUPS.items() for start in group.starts if metric.startswith(start)}
    return fitting[max(fitting)] if fitting else OTHER


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
