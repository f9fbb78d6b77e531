"""TensorBoard's event files, one folder a run: `tensorboard --logdir DIR/tracking` shows a study while it runs and afterwards."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossdistill.core.errors import SettingError

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError as error:
    raise SettingError(
        "`tracker: tensorboard` needs TensorBoard, which is not installed: pip install 'crossdistill[tensorboard]'"
    ) from error


def start(run: str, facts: Mapping[str, Any], folder: Path, first_epoch: int) -> SummaryWriter:
    """A writer of event files in `folder`. What an earlier process wrote of `first_epoch` and later ones is hidden: it comes again."""
    writer = SummaryWriter(log_dir=str(folder), purge_step=first_epoch)
    if first_epoch == 1:
        writer.add_text("facts", f"```\n{json.dumps(facts, indent=1, default=str)}\n```", global_step=0)
    return writer


def log(writer: SummaryWriter, epoch: int, values: Mapping[str, float]) -> None:
    """One point on each curve; flushed, so that a kill loses nothing."""
    for name, value in values.items():
        writer.add_scalar(name, value, global_step=epoch)
    writer.flush()


def finish(writer: SummaryWriter, final: Mapping[str, float]) -> None:
    """What stands in the record, as curves of one point, and the file is closed."""
    for name, value in final.items():
        writer.add_scalar(f"final/{name}", value, global_step=0)
    writer.close()
