"""What the contrasts are called on the page: with what the students of a method are compared, and what that can show."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from crossdistill.core.records import Against, InheritanceRow


class ContrastWords(NamedTuple):
    """One contrast in words: the head of its column, its place in a sentence, whose lead there is to inherit, and what it is."""

    title: str
    against: str
    control: str  # the label of a chart's axis: "points, student minus CONTROL"
    lead: str
    no_lead: str  # what is said where there is nothing to inherit
    meaning: str


_OWN_LEAD = "the teacher itself"
_NO_LEAD = "Teacher and independent students do not differ enough"

CONTRASTS: Mapping[Against, ContrastWords] = {
    "independent": ContrastWords(
        "Independent",
        "against independent students",
        "independent",
        _OWN_LEAD,
        _NO_LEAD,
        "the same student trained without a teacher, with the same recipe, budget and seeds",
    ),
    "accuracy_matched": ContrastWords(
        "Accuracy-matched",
        "against independent students of equal clean accuracy",
        "accuracy-matched independent",
        _OWN_LEAD,
        _NO_LEAD,
        "what independent students of shorter and of full trainings, by a line through them, reach at the student's own clean accuracy: "
        "being the better network does not count",
    ),
    "twin": ContrastWords(
        "Twin",
        "against its twin",
        "twin",
        _OWN_LEAD,
        _NO_LEAD,
        "the same prepared student, with its tokens, heads and views, trained on labels only",
    ),
    "shuffled_teacher": ContrastWords(
        "Shuffled teacher",
        "against students of a shuffled teacher",
        "student of a shuffled teacher",
        _OWN_LEAD,
        _NO_LEAD,
        "a student that was given its teacher's answers to other images of the same class: what the teacher knows of each single "
        "image makes the difference",
    ),
    "control_teacher": ContrastWords(
        "Control teacher",
        "against students of a control teacher",
        "student of the control teacher",
        "the teacher beside the control teacher",
        "Teacher and control teacher do not differ enough",
        "a student taught by a network of its own family, where both teachers teach at weights matched in validation accuracy: what "
        "is left comes from the teacher's architecture",
    ),
    "control_teacher_adjusted": ContrastWords(
        "Control teacher, adjusted",
        "against students of a control teacher, adjusted for the teachers' accuracy",
        "student of the control teacher, adjusted",
        "the teacher beside the control teacher",
        "Teacher and control teacher do not differ enough",
        "as with the control teacher, and with the validation accuracy of each teacher as a covariate",
    ),
    "second_independent": ContrastWords(
        "Side with teacher",
        "against a second independent student",
        "second independent",
        "a student that is its teacher",
        "A second independent student sides with the teacher nearly as often as the teacher itself",
        "how much more often than a second independent student the student takes the teacher's side, on the images that teacher and "
        "independent student answer differently",
    ),
}
"""In the order of the page."""


def meanings(rows: Sequence[InheritanceRow]) -> list[tuple[str, str]]:
    """(title, what it is) of the contrasts that occur."""
    occurring = {row.contrast for row in rows}
    return [(words.title, words.meaning) for contrast, words in CONTRASTS.items() if contrast in occurring]
