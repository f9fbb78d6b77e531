"""Input sizes: what was asked for, and whether a model's patches fit into it."""

from typing import Any

from crossdistill.core.errors import SettingError

InputSize = int | tuple[int, int] | None
"""A side in pixels, (height, width), or None for what suits the model and its weights."""


def chosen_size(asked: InputSize, default: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in pixels: what was asked for, or the default. Raises SettingError below one pixel."""
    height, width = default if asked is None else (asked, asked) if isinstance(asked, int) else asked
    if min(height, width) < 1:
        raise SettingError(f"input_size is a side of at least 1 pixel or [height, width], got {asked!r}")
    return height, width


def check_patches(model_name: str, model: Any, size: tuple[int, int]) -> None:
    """Raises SettingError where the model cuts images into patches that do not divide `size`."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if patch is None:
        return
    patch_height, patch_width = (patch, patch) if isinstance(patch, int) else patch
    for side, step in zip(size, (patch_height, patch_width), strict=True):
        check_side(model_name, side, step)


def check_side(model_name: str, side: int, patch: int) -> None:
    """Raises SettingError where `side` pixels are not a whole number of patches, naming the nearest sides that are."""
    if side % patch == 0:
        return
    below, above = side // patch * patch, (side // patch + 1) * patch
    nearest = f"{below} and {above}" if below else f"{above}"
    raise SettingError(
        f"{model_name} cuts images into patches of {patch} pixels, and a side of {side} is not a whole number of them. "
        f"Nearest that work: {nearest}. Set `input_size: {above}`, and the network resizes the images itself."
    )
