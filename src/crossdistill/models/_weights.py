"""Pretrained weights: fetched through the libraries' own clients, with an error that says what to do where that fails."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from crossdistill.core.errors import WeightsError


def head_note(model_name: str, n_published: int | None, n_classes: int) -> list[str]:
    """The sentence that says that a head was started anew, or none where the published head was kept."""
    if n_published == n_classes:
        return []
    return [
        f"The head of {model_name} was re-initialised: its weights were made for {n_published} classes, these images have {n_classes}. "
        "Everything before the head is as published."
    ]


@contextlib.contextmanager
def reaching_hub(model_name: str, *, wanted: bool) -> Iterator[None]:
    """Turn a failed download inside the block into a WeightsError that names the weights, the cache and the remedies."""
    try:
        yield
    except Exception as error:
        if not wanted or not _is_failed_download(error):
            raise
        raise WeightsError(
            f"the pretrained weights of {model_name} are not in the cache and cannot be downloaded ({_first_line(error)}). "
            f"Looked in {hub_cache()} and {torch_cache()}. Either connect this machine to the network once, or copy those folders "
            "from a machine that has the weights (HF_HUB_CACHE and TORCH_HOME move them), or give `checkpoint: FILE.safetensors`, "
            "or set `pretrained: false` to train from scratch."
        ) from error


def hub_cache() -> str:
    """The folder in which the Hugging Face hub keeps what it downloaded."""
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE


def torch_cache() -> str:
    """The folder in which torch keeps what it downloaded by address."""
    from torch.hub import get_dir

    return os.path.join(get_dir(), "checkpoints")


def _is_failed_download(error: BaseException) -> bool:
    # OSError holds URLError, timeouts, requests' errors and the hub's "not in the cache"; newer hubs speak httpx, whose errors are not.
    return isinstance(error, OSError) or any(kind.__module__.split(".")[0] in ("httpx", "huggingface_hub") for kind in type(error).__mro__)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no details'}"


def fitting_weights(model_name: str, model: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """The published tensors without those of a head for another number of classes.

    Raises WeightsError where anything but the head differs in shape, such as the positional embedding for another image size.
    """
    own = model.state_dict()
    unlike = [name for name, value in state.items() if name in own and own[name].shape != value.shape]
    # A head differs in its first axis alone, the classes; a positional embedding differs elsewhere.
    if wrong := [name for name in unlike if own[name].shape[1:] != state[name].shape[1:] or own[name].ndim > 2]:
        raise WeightsError(
            f"the published weights of {model_name} do not fit: {wrong[0]} has shape {tuple(state[wrong[0]].shape)}, "
            f"in the network {tuple(own[wrong[0]].shape)}. "
            "Leave `input_size` out, so that the network gets the size its weights were made for."
        )
    return {name: value for name, value in state.items() if name not in unlike}
