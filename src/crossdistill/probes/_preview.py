"""Preview pictures of probes: a row for each of a few images, clean first, then one column for each level."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from crossdistill.core.errors import ImageError, SettingError
from crossdistill.core.store import write_atomically
from crossdistill.core.types import ImageSet, ProbeImages
from crossdistill.probes._recipe import Order
from crossdistill.probes._treatment import apply_probe

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

N_ROWS = 6
SMALLEST_CELL, LARGEST_CELL = 96, 160  # pixels a side
MOST_COLUMNS = 8  # levels beside each other; more stand in bands below one another
MOST_BANDS = 3
GAP = 6
LINE = 14  # height of a line of text, pixels
FONT_PX = 11
CHARACTER = 6  # its mean width in pixels
INK, PAPER = (30, 30, 30), (255, 255, 255)

Column = tuple[str, np.ndarray]  # level name, the images at that level


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


def shown_levels(n_levels: int) -> list[int]:
    """The levels that a preview has room for, evenly spread from the first to the last.

    >>> shown_levels(3), len(shown_levels(75)), shown_levels(75)[-1]
    ([0, 1, 2], 24, 74)
    """
    most = MOST_COLUMNS * MOST_BANDS
    if n_levels <= most:
        return list(range(n_levels))
    return [round(place * (n_levels - 1) / (most - 1)) for place in range(most)]


def preview_built(order: Order, kept: np.ndarray, folder: Path) -> None:
    """Write `folder`/preview.png from the arrays that are complete there."""
    rows = rows_of_different_classes(order.images.labels[kept])
    columns = [
        (order.recipe.level_names[number], np.load(folder / f"images-{number}.npy", mmap_mode="r")[rows])  # draw 0 stands first
        for number in shown_levels(len(order.recipe.levels))
    ]
    clean = order.images.subset(kept[rows])
    write_atomically(folder / "preview.png", lambda file: write_preview(file, _title(order), clean, columns))


def preview_of(order: Order, n_rows: int = N_ROWS) -> bytes:
    """The preview picture of a set that was not built, as PNG: only the images that it shows are treated.

    Raises ImageError where the probe can treat none of the first few images of any class.
    """
    if n_rows < 1:
        raise SettingError(f"a preview needs at least one row, got {n_rows}")
    candidates = rows_of_different_classes(order.images.labels, 4 * n_rows)
    numbers = shown_levels(len(order.recipe.levels))
    kept = candidates[_treated(order, numbers[0], candidates).kept_index][:n_rows]
    if not len(kept):
        raise ImageError(f"probe '{order.name}' could treat none of the {len(candidates)} images that were tried for the preview")
    columns = [(order.recipe.level_names[number], _treated(order, number, kept).images) for number in numbers]
    file = io.BytesIO()
    write_preview(file, _title(order), order.images.subset(kept), columns)
    return file.getvalue()


def _treated(order: Order, level: int, rows: np.ndarray) -> ProbeImages:
    return apply_probe(order.recipe.plugin, order.recipe.levels[level], order.images, rows, order.draw_seed(0), order.supplies)


def _title(order: Order) -> str:
    n_levels = len(order.recipe.levels)
    n_shown = len(shown_levels(n_levels))
    return order.name if n_shown == n_levels else f"{order.name} ({n_shown} of {n_levels} levels)"


def write_preview(file: BinaryIO, title: str, clean: ImageSet, columns: Sequence[Column]) -> None:
    """Write a PNG: the few images `clean`, one a row, beside `columns` of (level name, the same images at that level).

    Many columns are split into bands, each with the clean images first. Small images are magnified by a whole number, pixel by
    pixel, so that nothing is smoothed away; large ones are reduced by averaging.
    """
    from PIL import Image, ImageDraw

    longest = max(clean.size)
    sizes = [_shown(images[0], longest).size for images in (clean.images, *(images for _, images in columns))]
    cell_width, cell_height = (max(size[axis] for size in sizes) for axis in (0, 1))
    headed = [(_heading(name, cell_width // CHARACTER), images) for name, images in columns]
    bands = [[("clean", clean.images), *band] for band in _bands(headed)]
    left = GAP + _text_width(clean.class_names) + GAP
    headings = LINE * max(heading.count("\n") + 1 for band in bands for heading, _ in band)
    band_height = headings + len(clean) * (cell_height + GAP) + GAP
    size = (left + max(map(len, bands)) * (cell_width + GAP), GAP + LINE + GAP + len(bands) * band_height)
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)

    _write(draw, (GAP, GAP), title)
    for number, band in enumerate(bands):
        top = GAP + LINE + GAP + number * band_height
        for column, (heading, images) in enumerate(band):
            x = left + column * (cell_width + GAP)
            _write(draw, (x, top - GAP // 2), heading)
            for row, image in enumerate(images):
                cell = _shown(image, longest)
                # A smaller image stands in the middle of its cell.
                x_inset, y_inset = (cell_width - cell.width) // 2, (cell_height - cell.height) // 2
                page.paste(cell, (x + x_inset, top + headings + row * (cell_height + GAP) + y_inset))
        for row, label in enumerate(clean.labels):
            y = top + headings + row * (cell_height + GAP) + cell_height // 2 - LINE // 2
            _write(draw, (GAP, y), _class_name(clean, int(label)))
    page.save(file, format="PNG")


def _heading(level_name: str, width: int) -> str:
    """A level's name on lines of at most `width` characters, a setting a line, broken after = and _ where it must be.

    >>> _heading("kind=elastic_transform,severity=3", 16).split("\\n")
    ['kind=elastic_', 'transform', 'severity=3']
    """
    lines: list[str] = []
    for setting in level_name.split(","):
        lines.append("")
        for piece in re.split("(?<=[=_])", setting):
            if lines[-1] and len(lines[-1]) + len(piece) > width:
                lines.append("")
            lines[-1] += piece
    return "\n".join(lines)


def _bands(columns: Sequence[Column]) -> list[Sequence[Column]]:
    """The columns in as few bands as they fit, of nearly equal length."""
    n_bands = -(-len(columns) // MOST_COLUMNS)
    length = -(-len(columns) // n_bands)
    return [columns[start : start + length] for start in range(0, len(columns), length)]


def _shown(image: np.ndarray, longest: int) -> "Image":
    """The image as it stands in a cell, scaled as clean images are whose longer side is `longest`."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    if longest > LARGEST_CELL:
        share = LARGEST_CELL / longest
        sides = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))  # a narrow image is at least a line
        return picture.resize(sides, Image.Resampling.BOX)
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
