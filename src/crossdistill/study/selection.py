"""Which trainings of a study `--only` asks for."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from crossdistill.core.errors import SettingError
from crossdistill.study.plan import Plan

Only = Sequence[str]
"""Patterns for labels: with *, ? or [...] one for the whole label, else a part of it. None of them: all trainings."""


def matches(label: str, only: Only) -> bool:
    """Whether a training is asked for, by its label.

    >>> [matches("kd: vit -> cnn, seed 0", [only]) for only in ("kd", "kd*", "seed 0", "*seed 1", "vit -> *")]
    [True, True, True, False, False]
    """
    return not only or any(fnmatchcase(label, pattern) if set(pattern) & set("*?[") else pattern in label for pattern in only)


def refuse_unmatched(plan: Plan, only: Only) -> None:
    """Raises SettingError for a pattern that no training of the plan matches."""
    labels = [training.label for training in (*plan.trainings, *plan.ceilings)]
    for pattern in only:
        if not any(matches(label, [pattern]) for label in labels):
            raise SettingError(f"--only '{pattern}' matches no training of this study. There are: {'; '.join(labels)}.")
