"""Errors that the user can mend. The command line prints them as one message, without traceback, and exits with 2."""

from collections.abc import Iterable
from difflib import get_close_matches


class CrossdistillError(Exception):
    """Something the user can mend; its text says what was expected, what came, and what to do."""

    def _render_traceback_(self) -> list[str]:
        """What IPython and notebooks print: the message without a traceback, as the command line does."""
        return [f"crossdistill: {self}"]


class UnknownNameError(CrossdistillError, LookupError):
    """A method, probe, model, setting or network that does not exist."""


class SettingError(CrossdistillError, ValueError):
    """A setting of the wrong type or outside its range."""


class ImageError(CrossdistillError):
    """Images that are missing, damaged, unlabelled or of a size that does not fit."""


class DecisionsError(CrossdistillError):
    """A file of decisions that is damaged, incomplete, or contradicts itself."""


class WeightsError(CrossdistillError):
    """Weights that cannot be had (hub offline), are damaged, or do not fit the network."""


class StudyError(CrossdistillError):
    """A study folder that is in use, belongs to another study, or cannot be written."""


class RunError(StudyError):
    """Files of one run that are missing, damaged or another's: that run fails, and the rest of its study goes on."""


class DivergedError(CrossdistillError):
    """A loss that is not finite; the last good state is kept."""


def nearest(name: str, names: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the name nearest to `name`, or an empty string when none is near."""
    close = get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown_name(kind: str, name: str, names: Iterable[str]) -> UnknownNameError:
    """The error for a name that does not exist, with the nearest name and all names.

    >>> str(unknown_name("method", "kdd", ["kd", "crd"]))
    "no method is called 'kdd'. Did you mean 'kd'? There are: crd, kd."
    """
    names = sorted(names)
    return UnknownNameError(f"no {kind} is called '{name}'.{nearest(name, names)} There are: {', '.join(names)}.")
