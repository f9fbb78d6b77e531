"""Features at the taps that all networks share, in shapes that can be compared (Nguyen et al., ICLR 2021, arXiv 2010.15327)."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crossdistill.core.errors import SettingError
from crossdistill.core.registry import instrument
from crossdistill.instruments._passes import as_rows, has_class_token, undisturbed
from crossdistill.ops.network import Network


@instrument(source="Nguyen et al., ICLR 2021", unit="activation")
@torch.no_grad()
def features(network: Network, images: Tensor, *, side: int = 4) -> dict[str, np.ndarray]:
    """For each stage `STAGE` (the mean over positions), `STAGE_grid` and, where there is one, `STAGE_class_token`; and `pooled`, last.

    Vectors are [images, channels]; grids [images, channels, side, side], averaged to a common grid of `side` x `side` positions, the
    same for all networks: a grid with fewer positions repeats them. Prefix tokens are in neither. For CKA.
    """
    if side < 1:
        raise SettingError(f"setting 'side' of features is at least 1, got {side}")
    stages = network.reader.stages
    with undisturbed(network, images):
        seen = network(images, [*stages, "pooled"])
    assert seen.pooled is not None, "it was asked for"
    found: dict[str, Tensor] = {}
    for stage in stages:
        feature_map = seen.stages[stage]
        found[stage] = feature_map.grid.mean(dim=(2, 3))
        found[f"{stage}_grid"] = F.adaptive_avg_pool2d(feature_map.grid, side)
        if feature_map.prefix is not None and has_class_token(network):
            found[f"{stage}_class_token"] = feature_map.prefix[:, 0]
    found["pooled"] = seen.pooled
    return {name: as_rows(values) for name, values in found.items()}
