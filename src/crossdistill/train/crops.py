"""Crops of resident uint8 images: shifted by up to an eighth of the side after reflection, or resized from a random box.

Everything is integer arithmetic, so a crop is the same on every machine, on any device and in any batch.
"""

from functools import cache

import torch
from torch import Tensor

from crossdistill.train.boxes import Boxes, drawn_boxes

RATIO = (3 / 4, 4 / 3)  # of a resized crop's sides, as for ImageNet (Szegedy et al., 2015)
FRACTION = 11  # bits after the point of a bilinear weight: 8 bits of grey, once down and once across, still fit into int32
IN_CACHE = 1 << 20  # values resized at a time on a CPU: five times as fast as whole batches, which do not fit into its cache


def shifted(images: Tensor, index: Tensor, top: Tensor, left: Tensor, flip: Tensor) -> Tensor:
    """The rows `index`, cropped at `top` and `left` (16 bits each) after reflection by an eighth, mirrored where `flip` is 1."""
    height, width = images.shape[2:]
    row_windows, column_windows = _windows(height, images.device), _windows(width, images.device)
    rows = row_windows[top % len(row_windows)]
    columns = torch.cat([column_windows, column_windows.flip(1)])[left % len(column_windows) + flip * len(column_windows)]
    # Whole rows first, then columns: three times as fast on a CPU as one gather of single pixels.
    chosen = _lines(images, index, rows)
    return chosen.gather(3, columns[:, None, None, :].expand_as(chosen))


def resized_boxes(keys: Tensor, size: tuple[int, int], scale: tuple[float, float]) -> Boxes:
    """The boxes of torchvision's RandomResizedCrop: `scale` bounds their share of the area, 3/4 and 4/3 the ratio of their sides.

    Where ten tries do not fit, the largest central box of an allowed ratio is taken.
    """
    height, width = size
    boxes = drawn_boxes(keys, size, area=scale, ratio=RATIO, most=size)
    central_height, central_width = min(height, round(width * RATIO[1])), min(width, round(height * RATIO[1]))
    centre = ((height - central_height) // 2, (width - central_width) // 2, central_height, central_width)
    return Boxes(*(torch.where(boxes.height > 0, drawn, fallback) for drawn, fallback in zip(boxes, centre, strict=True)))


def resized(images: Tensor, index: Tensor, boxes: Boxes, flip: Tensor) -> Tensor:
    """The boxes of the rows `index`, brought to the images' size by bilinear sampling, mirrored where `flip` is 1: uint8.

    A box is never larger than the image: pixels are interpolated, none is skipped, and so no antialiasing is needed.
    """
    values = images[0].numel()
    at_once = max(1, IN_CACHE // values) if images.device.type == "cpu" else len(index)
    parts = zip(*(values.split(at_once) for values in (index, flip, *boxes)), strict=True)
    return torch.cat([_resized(images, rows, Boxes(*box), mirrored) for rows, mirrored, *box in parts])


def _resized(images: Tensor, index: Tensor, boxes: Boxes, flip: Tensor) -> Tensor:
    height, width = images.shape[2:]
    above, below, down = _between(boxes.top, boxes.height, height)
    before, after, across = _between(boxes.left, boxes.width, width)
    down = down[:, None, :, None]
    rows = _lines(images, index, above).int().mul_((1 << FRACTION) - down).add_(_lines(images, index, below).int().mul_(down))
    before, after, across = (torch.where(flip[:, None] == 1, values.flip(1), values)[:, None, None] for values in (before, after, across))
    pixels = rows.gather(3, before.expand_as(rows)).mul_((1 << FRACTION) - across)
    pixels.add_(rows.gather(3, after.expand_as(rows)).mul_(across))
    return pixels.add_(1 << (2 * FRACTION - 1)).bitwise_right_shift_(2 * FRACTION).to(torch.uint8)  # rounded once, a half up


def _between(start: Tensor, length: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """For `side` pixels shown of each stretch: the two pixels between which each lies, and how far on (int32, fixed point).

    Pixel k is sampled at (k + 1/2) * length / side - 1/2 from the start, kept between the stretch's first and last pixel.
    """
    numerator = (2 * torch.arange(side, device=start.device) + 1) * length[:, None] - side
    position = torch.minimum(((numerator << FRACTION) + side) // (2 * side), (length[:, None] - 1) << FRACTION).clamp(min=0)
    pixel = position >> FRACTION
    other = torch.minimum(pixel + 1, length[:, None] - 1)
    return start[:, None] + pixel, start[:, None] + other, (position - (pixel << FRACTION)).int()


def _lines(images: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """The lines `rows` [batch, lines] of the images `index`: uint8 [batch, 3, lines, width]."""
    height, width = images.shape[2:]
    planes = index[:, None] * 3 + torch.arange(3, device=images.device)  # batch channels
    lines = planes[:, :, None] * height + rows[:, None, :]  # batch channels lines
    return images.reshape(-1, width).index_select(0, lines.flatten()).view(len(index), 3, rows.shape[1], width)


@cache
def _windows(side: int, device: torch.device) -> Tensor:
    """int64 [shifts, side]: the positions that each window of the reflected side shows, reflected by an eighth (at least 1 px)."""
    pad = max(1, round(side / 8))
    return reflected(torch.arange(-pad, side + pad, device=device), side).unfold(0, side, 1)


def reflected(position: Tensor, side: int) -> Tensor:
    """Positions outside 0..side-1 mirrored at the border pixel's centre, as numpy's and torch's `reflect` do."""
    return (side - 1) - ((side - 1) - position.abs()).abs()
