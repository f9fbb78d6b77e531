"""Text of other people in Markdown: names may hold anything, and must neither break a table nor become HTML or a link."""

import re
import unicodedata
from typing import Any

LONGEST = 300

_SPECIAL = re.compile(r"([\\`*{}\[\]#~$|!@]|(?<!\w)_|_(?!\w)|^>)")  # between letters an underscore is only that


class Raw(str):
    """Text that is Markdown already, or stands in a code block."""


def escaped(value: Any) -> str:
    r"""The value as plain text in Markdown: on one line, without marks that turn the direction of writing, shortened where very long.

    >>> escaped("a|b <script> *c*\nd"), escaped(Raw("*c*"))
    ('a\\|b &lt;script> \\*c\\* d', '*c*')
    """
    if isinstance(value, Raw):
        return str(value)
    text = " ".join(str(value).split())
    text = "".join(each for each in text if unicodedata.category(each) not in ("Cc", "Cf"))  # Cf: overrides of direction, zero widths
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]} ..."
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    text = text.replace("://", "&colon;//").replace("www.", "www&period;")  # else the Hub makes a link of an address
    return _SPECIAL.sub(r"\\\1", text)


def code_block(text: str, language: str = "") -> Raw:
    """A fenced block that nothing in the text can close."""
    longest = max((len(ticks) for ticks in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Raw(f"{fence}{language}\n{text.rstrip()}\n{fence}")
