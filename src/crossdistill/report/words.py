"""Numbers as readers see them: shares in per cent, differences in points, never NaN."""

import math

from crossdistill.core.setting_words import joined
from crossdistill.metrics._answers import CHANCE, COUNT

MINUS = "\u2212"
SPACE = "\u00a0"  # keeps a number and its unit on one line
NO_NUMBER = "not measurable"
UNITS_TO_PRINT = ("nats", "bits", "px", "s")  # other units are remarks, which the page makes beside the table


def known(value: float | None) -> bool:
    """Whether there is a number: neither None nor NaN nor infinite.

    >>> known(0.0), known(None), known(float("inf"))
    (True, False, False)
    """
    return value is not None and math.isfinite(value)


def percent(share: float | None) -> str:
    """A share of 0 to 1 as per cent with one decimal.

    >>> percent(0.8317).replace(SPACE, " "), percent(None)
    ('83.2 %', 'not measurable')
    """
    return f"{_number(100 * share, 1)}{SPACE}%" if known(share) else NO_NUMBER  # type: ignore[operator]


def signed(share: float | None) -> str:
    """A difference of shares as a signed number of points, without the word.

    >>> signed(0.031), signed(-0.2) == MINUS + "20.0", signed(-0.0001)
    ('+3.1', True, '0.0')
    """
    if share is None or not known(share):
        return NO_NUMBER
    text = _number(100 * share, 1)
    return text if text == "0.0" or text.startswith(MINUS) else f"+{text}"


def points(share: float | None) -> str:
    """A difference of shares in points, with its sign.

    >>> points(0.031).replace(SPACE, " ")
    '+3.1 points'
    """
    return f"{signed(share)}{SPACE}points" if known(share) else NO_NUMBER


def size_in_points(share: float) -> str:
    """The size of a difference in points, without sign, for a margin or a smallest detectable effect.

    >>> size_in_points(0.02).replace(SPACE, " ")
    '2.0 points'
    """
    return f"{_number(abs(100 * share), 1)}{SPACE}points"


def interval(low: float | None, high: float | None) -> str:
    """The limits of a difference, in points; empty where one is missing.

    >>> interval(0.04, 0.102)
    '+4.0 to +10.2'
    """
    return f"{signed(low)} to {signed(high)}" if known(low) and known(high) else ""


def points_with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """A difference in points and its 95 % interval in brackets.

    >>> points_with_interval(0.031, 0.01, 0.052).replace(SPACE, " ")
    '+3.1 points (+1.0 to +5.2)'
    """
    limits = interval(low, high)
    return f"{points(value)} ({limits})" if limits and known(value) else points(value)


def figure(value: float | None, unit: str) -> str:
    """A result in its own unit: shares in per cent, anything else as a plain number.

    >>> figure(0.5, "share").replace(SPACE, " "), figure(0.12345, "nats").replace(SPACE, " ")
    ('50.0 %', '0.123 nats')
    >>> figure(829.0, "images"), figure(3.5, "images")
    ('829', '3.5')
    """
    if value is None or not known(value):
        return NO_NUMBER
    if unit == "difference":
        return points(value)
    if is_share(unit):
        return percent(value)
    if unit == COUNT:
        return _number(value, 0 if value.is_integer() else 1)
    return f"{_number(value, 3)}{SPACE}{unit}" if unit in UNITS_TO_PRINT else _number(value, 3)


def is_share(unit: str) -> bool:
    """Whether figures of this unit are shares of 0 to 1, printed in per cent."""
    return unit in _SHARES


_SHARES = ("", "share", "retention", "probability", "difference", "part of the ceiling", "share of the side", CHANCE)


def difference(value: float | None, unit: str) -> str:
    """A signed difference of two figures in their own unit: shares in points, without the word, anything else as a plain number.

    >>> difference(0.031, "share"), difference(-0.25, "nats") == MINUS + "0.250", difference(0.25, "kappa")
    ('+3.1', True, '+0.250')
    """
    if value is None or not known(value) or is_share(unit):
        return signed(value)
    text = _number(value, 3)
    return text if text == "0.000" or text.startswith(MINUS) else f"+{text}"


def count(n: int, noun: str) -> str:
    """A number and its noun, in the plural where it needs one; thousands are separated.

    >>> count(1, "run"), count(1500, "image")
    ('1 run', '1,500 images')
    """
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def in_percent(share: float | None) -> float | None:
    """A share as a place on an axis of per cent."""
    return None if share is None else 100 * share


def listed(items: list[str], last: str = "and") -> str:
    """Items as one enumeration.

    >>> listed(["clean", "scramble", "superpixel"])
    'clean, scramble and superpixel'
    """
    return joined(items, last)


def duration(seconds: float | None) -> str:
    """Seconds in the unit that fits.

    >>> duration(7.26), duration(200), duration(7300)
    ('7.3 s', '3 min 20 s', '2 h 1 min')
    """
    if seconds is None or not known(seconds):
        return "not recorded"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _number(value: float, decimals: int) -> str:
    """A number with a true minus sign, and no minus before a rounded zero."""
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)
