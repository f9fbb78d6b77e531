"""Where a network sees a class: Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391)."""

import numpy as np
import torch
from torch import Tensor

from crossdistill.core.errors import SettingError
from crossdistill.core.registry import instrument
from crossdistill.instruments._passes import pictures, pixels_of, undisturbed
from crossdistill.ops.checks import refuse_labels
from crossdistill.ops.hook_reader import Tapped
from crossdistill.ops.network import Network
from crossdistill.ops.taps import recording
from crossdistill.ops.trace import trace


def class_activation(grid: Tensor, gradient: Tensor) -> Tensor:
    """ReLU(sum_k a_k A_k), [images, height, width]; a_k is the mean gradient of channel k over positions (equations 1 and 2)."""
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * grid).sum(dim=1).relu()


@instrument(source="Selvaraju et al., ICCV 2017", unit="share of the largest")
def grad_cam(network: Network, images: Tensor, classes: Tensor | None = None) -> np.ndarray:
    """[images, height, width] of the images' size, 0 to 1: the evidence for each image's class, over the image's largest.

    `classes` [images] are the classes to look for; without them, or where one is -1, what the network answers. The map is the
    deepest one on which the answer depends: the last, or where a class token is read, in which the last block's patches have no
    say, stage 3 (after five sixths of the blocks). Unlike the package `grad-cam`, which also subtracts each map's smallest value,
    zero stays no evidence.
    """
    if classes is not None:
        refuse_labels(classes, len(images), network.n_classes)
    pixels = pixels_of(images)
    with undisturbed(network, images), torch.enable_grad():
        places = _places(network, pixels[:1])
        modules = {name: network.get_submodule(place.module) for name, place in places.items()}
        with recording(modules) as seen:
            logits = network(pixels).logits
        answered = logits.argmax(dim=1)
        chosen = answered if classes is None else torch.where(classes.to(answered) < 0, answered, classes.to(answered))
        score = logits.gather(1, chosen[:, None]).sum()
        outputs = [seen.outputs[name] for name in places]
        gradients = torch.autograd.grad(score, outputs, allow_unused=True, materialize_grads=True)
    maps = [
        (place.feature_map(output).grid.float(), place.feature_map(gradient).grid.float())
        for place, output, gradient in zip(places.values(), outputs, gradients, strict=True)
    ]
    grid, gradient = next((pair for pair in maps if pair[1].any()), maps[0])
    return pictures(class_activation(grid.detach(), gradient), (images.shape[-2], images.shape[-1]))


@torch.no_grad()
def _places(network: Network, image: Tensor) -> dict[str, Tapped]:
    """The modules that give the maps, deepest first: a tap is made from what a module gave, and the answer does not depend on the tap.

    They are told by their values in one pass over one image.
    """
    names = ["last", *reversed(network.reader.stages)]
    seen = network(image, names).stages
    calls = [call for call in reversed(trace(network, image).calls) if len(call.given) == 1]
    found: dict[str, Tapped] = {}
    for name in names:
        grid = seen[name].grid
        size = (grid.shape[2], grid.shape[3])
        # A class token may join the patches late (CaiT), so that earlier maps have no prefix.
        tokens = [Tapped("", "tokens", size, n_prefix) for n_prefix in (network.n_prefix, 0)]
        ways = [*tokens, Tapped("", "NHWC", size), Tapped("", "NCHW", size)]
        places = ((call, way) for call in calls for way in ways if _gives(call.given, way, grid))
        place = next(places, None)
        if place is None:
            called = network.model_name or type(network.model).__name__
            raise SettingError(f"the map `{name}` of {called} is not what one of its modules gives, so that its gradient cannot be taken")
        call, way = place
        found[name] = Tapped(call.name, way.layout, size, way.n_prefix)
    return found


def _gives(output: Tensor, way: Tapped, grid: Tensor) -> bool:
    if output.ndim != (3 if way.layout == "tokens" else 4) or output.numel() != grid.numel() + way.n_prefix * grid.shape[1]:
        return False
    try:
        same = way.feature_map(output).grid
    except ValueError:  # another number of tokens
        return False
    return same.shape == grid.shape and torch.allclose(same.to(grid), grid, rtol=1e-5, atol=1e-6)
