"""The preview picture of a probe set: a row for each of a few images, clean first, then one column for each level."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from crossdistill.core.types import ImageSet

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

N_ROWS = 6
SMALLEST_CELL, LARGEST_CELL = 96, 160  # pixels a side
GAP = 6
LINE = 14  # height of a line of text, pixels
FONT_PX = 11
INK, PAPER = (30, 30, 30), (255, 255, 255)


def rows_of_different_classes(labels: np.ndarray, n_rows: int = N_ROWS) -> np.ndarray:
    """The first image of each class, then the second of each and so on, at most `n_rows` row numbers.

    >>> rows_of_different_classes(np.array([5, 5, 5, 2, 2]), 4).tolist()
    [0, 3, 1, 4]
    """
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    nth_of_class = np.empty(len(labels), np.int64)
    nth_of_class[order] = np.arange(len(labels)) - starts
    return np.lexsort((np.arange(len(labels)), nth_of_class))[:n_rows]


def write_preview(file: BinaryIO, title: str, clean: ImageSet, columns: Sequence[tuple[str, np.ndarray]]) -> None:
    """Write a PNG: the few images `clean`, one a row, beside `columns` of (level name, the same images at that level).

    Small images are magnified by a whole number, pixel by pixel, so that nothing is smoothed away; large ones are reduced by averaging.
    """
    from PIL import Image, ImageDraw

    cell_height, cell_width = _shown(clean.images[0]).size[::-1]
    headings = ["clean", *(name for name, _ in columns)]
    top = GAP + LINE + GAP + LINE * max(heading.count(",") + 1 for heading in headings)
    left = GAP + _text_width(clean.class_names) + GAP
    size = (left + len(headings) * (cell_width + GAP), top + len(clean) * (cell_height + GAP))
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)

    _write(draw, (GAP, GAP), title)
    for column, (heading, images) in enumerate([("clean", clean.images), *columns]):
        x = left + column * (cell_width + GAP)
        _write(draw, (x, GAP + LINE + GAP // 2), heading.replace(",", "\n"))
        for row, image in enumerate(images):
            cell = _shown(image)
            # A cropped image stands in the middle of its cell.
            x_inset, y_inset = (cell_width - cell.width) // 2, (cell_height - cell.height) // 2
            page.paste(cell, (x + x_inset, top + row * (cell_height + GAP) + y_inset))
    for row, label in enumerate(clean.labels):
        _write(draw, (GAP, top + row * (cell_height + GAP) + cell_height // 2 - LINE // 2), _class_name(clean, int(label)))
    page.save(file, format="PNG")


def _shown(image: np.ndarray) -> "Image":
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    longest = max(picture.size)
    if longest > LARGEST_CELL:
        share = LARGEST_CELL / longest
        return picture.resize((round(picture.width * share), round(picture.height * share)), Image.Resampling.BOX)
    factor = max(1, round(SMALLEST_CELL / longest))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _class_name(images: ImageSet, label: int) -> str:
    return _shorten(images.class_names[label]) if 0 <= label < images.n_classes else ""


def _shorten(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"


def _text_width(names: Sequence[str]) -> int:
    return 7 * max((len(_shorten(name)) for name in names), default=0)


def _write(draw: "ImageDraw", at: tuple[int, int], text: str) -> None:
    from PIL import ImageFont

    draw.multiline_text(at, text, fill=INK, font=ImageFont.load_default(FONT_PX), spacing=LINE - FONT_PX)
