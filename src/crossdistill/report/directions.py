"""Names in scripts that run from right to left, and characters that turn text around, shown so that they move nothing beside them."""

import re

FIRST_STRONG_ISOLATE, POP_ISOLATE = "\u2068", "\u2069"
CONTROLS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
RIGHT_TO_LEFT = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\U00010800-\U00010fff\U0001e800-\U0001efff"
RUN = re.compile(f"[{RIGHT_TO_LEFT}](?:[^\\S\n]*[{RIGHT_TO_LEFT}])*")


def isolated(value: object) -> object:
    """The value, ready to be printed: each run of right-to-left letters isolated, direction characters spelled out; markup as it is.

    Sentences are composed of names before they reach a template, so that no element can stand around a name there.

    >>> isolated("a\\u202eb"), isolated("plain"), isolated(3)
    ('a[U+202E]b', 'plain', 3)
    >>> isolated("\\u05d0\\u05d1 61 %") == "\\u2068\\u05d0\\u05d1\\u2069 61 %"
    True
    """
    if not isinstance(value, str) or value.isascii() or hasattr(value, "__html__"):
        return value
    return RUN.sub(lambda found: f"{FIRST_STRONG_ISOLATE}{found[0]}{POP_ISOLATE}", spelled_out(value))


def spelled_out(text: str) -> str:
    """The text with every direction character as its code. In a drawing that is enough: each of its texts stands alone."""
    return CONTROLS.sub(lambda found: f"[U+{ord(found[0]):04X}]", text)
