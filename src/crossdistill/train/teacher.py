"""What teaches at a step: the teacher's answers to a batch, from the network itself."""

from collections.abc import Mapping

import torch
from torch import Tensor

from crossdistill.core.types import Activations, Batch, FeatureMap
from crossdistill.ops.network import Network

HALF_MAX = torch.finfo(torch.float16).max
MANY = 64


class LiveTeacher:
    """The teacher as it answers each batch afresh: in eval mode, without gradients, rounded to the recipe's `cache_dtype`.

    To be called where the recipe's autocast is on. An answer is a function of the image alone, so that one that was stored earlier
    may stand in for it (see `cache`); for that every tensor comes in one layout, its own dimensions in order.
    """

    def __init__(self, network: Network, taps: tuple[str, ...], dtype: str = "float32") -> None:
        self.network, self.taps, self.dtype = network, taps, dtype

    def __call__(self, batch: Batch) -> Activations:
        return self.answer(batch.teacher_images)

    @torch.no_grad()
    def answer(self, images: Tensor) -> Activations:
        """The answers to images [batch, 3, height, width]."""
        self.network.eval()
        found = named_arrays(self.network(filled_up(images), taps=self.taps))
        return from_arrays({name: restored(stored(value[: len(images)], self.dtype)) for name, value in found.items()})


def filled_up(images: Tensor) -> Tensor:
    """Few images, repeated until their number is a multiple of 8: BLAS multiplies the rows of smaller matrices by other kernels.

    Their last bits would then depend on how many images are shown at once. From a dozen rows on they were found not to.
    """
    n = len(images)
    if n >= MANY or n % 8 == 0:
        return images
    return images[torch.arange(n + -n % 8, device=images.device) % n]


def stored(value: Tensor, dtype: str) -> Tensor:
    """A float32 tensor as it is kept: contiguous, and rounded to float16 where the recipe says so (the largest there is at most)."""
    if dtype == "float16" and value.dtype == torch.float32:
        value = value.clamp(-HALF_MAX, HALF_MAX).half()
    return value.contiguous()


def restored(value: Tensor) -> Tensor:
    """A tensor that was kept, in float32 or wider."""
    return value.float() if value.dtype == torch.float16 else value


def named_arrays(activations: Activations) -> dict[str, Tensor]:
    """Every tensor of a network's answer under a flat name: "logits", "stage3", "stage3.prefix", "dense.class", "attention.q" ...

    What is one tensor in the answer, as the logits and those of the class head often are, stands here once: `from_arrays` takes a
    head that is missing for the logits.
    """
    found = {"logits": activations.logits}
    if activations.pooled is not None:
        found["pooled"] = activations.pooled
    for name, feature_map in activations.stages.items():
        found[name] = feature_map.grid
        if feature_map.prefix is not None:
            found[f"{name}.prefix"] = feature_map.prefix
    found |= {f"head.{name}": value for name, value in activations.heads.items() if value is not activations.logits}
    found |= {f"dense.{name}": value for name, value in activations.dense.items()}
    return found | {f"attention.{name}": value for name, value in activations.attention.items()}


def from_arrays(arrays: Mapping[str, Tensor]) -> Activations:
    """The answer whose tensors `named_arrays` named."""
    parts: dict[str, dict[str, Tensor]] = {"head": {}, "dense": {}, "attention": {}}
    maps: dict[str, Tensor] = {}
    prefixes: dict[str, Tensor] = {}
    for path, value in arrays.items():
        name, _, rest = path.partition(".")
        if rest == "prefix":
            prefixes[name] = value
        elif rest:
            parts[name][rest] = value
        elif name not in ("logits", "pooled"):
            maps[name] = value
    heads = parts["head"] if "class" in parts["head"] else {"class": arrays["logits"], **parts["head"]}
    stages = {name: FeatureMap(grid, prefixes.get(name)) for name, grid in maps.items()}
    return Activations(arrays["logits"], arrays.get("pooled"), stages, heads, parts["dense"], parts["attention"])
