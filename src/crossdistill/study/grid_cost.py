"""What a study costs whose weights are still to be chosen: the choosing, then the study as it will be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from crossdistill.core.config import StudyConfig
from crossdistill.core.progress import Progress
from crossdistill.study.choosing import known_choices
from crossdistill.study.folder import WEIGHTS_FOLDER
from crossdistill.study.grid import choosing_study, grids, with_weights

SHARED = ("images", "encoder", "teacher", "warm_up", "answers")
"""Kinds of task whose results studies share: what the choosing leaves of them, the study finds."""


def cost_with_choosing(
    config: StudyConfig, cost: Callable[..., dict[str, Any]], *, store: Path, progress: Progress, device: torch.device, out: Path | None
) -> dict[str, Any]:  # fmt: skip
    """The study's cost by `cost`, with that of the choosing under "choosing" (None where it is done), and the grids under "weights"."""
    about = {"store": store, "progress": progress, "device": device}
    known = known_choices(config, out, device=device, progress=progress) if out else None
    chosen = {choice.subject: choice.chosen for choice in known or () if choice.chosen is not None}
    choosing = None if known else cost(choosing_study(config), out=out and out / WEIGHTS_FOLDER, **about)
    made = {node["key"] for node in choosing["graph"] if node["kind"] in SHARED} if choosing else ()
    weights = [{"method": name, "grid": list(grid), "chosen": chosen.get(name)} for name, grid in grids(config).items()]
    study = cost(with_weights(config, chosen), out=out, made_before=made, **about)
    seconds = study["total"]["seconds"] + (choosing["total"]["seconds"] if choosing else 0.0)
    return {**study, "weights": weights, "choosing": choosing, "seconds_with_choosing": round(seconds, 1)}
