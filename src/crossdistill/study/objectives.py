"""What a student is trained on: the objective of its method or of a control, with the module that the method warmed up."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from crossdistill.core import registry
from crossdistill.core.errors import RunError, StudyError
from crossdistill.core.method_config import MethodConfig
from crossdistill.core.progress import Stopwatch
from crossdistill.core.seeds import torch_seed
from crossdistill.core.store import file_sha256, locked, read_json, write_atomically, write_json
from crossdistill.core.types import ImageSet, Needs, WarmUp
from crossdistill.ops.modes import frozen
from crossdistill.ops.network import Network
from crossdistill.study.plan import Training, WarmUpTask, warm_up_of
from crossdistill.study.timings import note_epochs, warm_up_facts
from crossdistill.study.workshop import Workshop
from crossdistill.train.checkpoint import clear_checkpoints
from crossdistill.train.loop import Training as Trainer
from crossdistill.train.objective import (
    Objective,
    make_objective,
    method_weights,
    plugin_views,
    published_weights,
    refuse_class_mismatch,
    trainable,
)
from crossdistill.train.partners import same_class_partners


def objective_of(shop: Workshop, training: Training, network: Network, teacher: Network | None, epoch: int | None) -> Objective:
    """The objective of a training: labels alone for teachers, independents and twins (these see their method's views).

    `epoch` is the one after which the teacher's weights were taken, None for its last.
    """
    method = training.method
    if method is None or teacher is None:
        return labels_alone(method)
    refuse_class_mismatch(network, teacher)
    warm_up = warm_up_of(method, training.teacher, epoch)
    warm = warmed(shop, warm_up, teacher) if warm_up else None
    who = (shop.config.seed, training.role, training.seed)
    rng = torch.Generator().manual_seed(torch_seed(*who, "objective"))
    torch.manual_seed(torch_seed(*who, "auxiliary"))
    objective = taught_objective(method, network, teacher, shop.splits.train, rng=rng, warm=warm)
    if words := extras(objective):
        shop.progress.line(f"  {training.label}: {method.name} adds {words}")
    return objective


def labels_alone(method: MethodConfig | None) -> Objective:
    """The objective without a teacher, on the views of the method whose twin it trains."""
    if method is None:
        return Objective()
    plugin = registry.get("method", method.name)
    return Objective(views=plugin_views(plugin, plugin.parse(method.settings)))


def taught_objective(
    method: MethodConfig, student: Network, teacher: Network, images: ImageSet, *, rng: torch.Generator, warm: nn.Module | None
) -> Objective:  # fmt: skip
    """The objective of a method as the study file has it; `warm` is the module of its warm-up, where it has one."""
    plugin = registry.get("method", method.name)
    settings = plugin.parse(method.settings)
    return make_objective(
        plugin, settings, method_weights(published_weights(plugin, settings), weight=method.one_weight, weights=method.weights),
        student=student, teacher=teacher, images=images, rng=rng, warm=warm, ramp_epochs=method.ramp_epochs, until=method.until,
    )  # fmt: skip


def extras(objective: Objective) -> str:
    """What a method's own module takes in memory, in words; empty where it has none."""
    if objective.module is None:
        return ""
    trained = sum(parameter.numel() for parameter in trainable(objective.module.parameters()))
    state = sum(buffer.numel() * buffer.element_size() for buffer in objective.module.buffers())
    return f"{trained:,} trained parameters and {state / 2**20:.1f} MB of state"


def partners_of(shop: Workshop, training: Training) -> np.ndarray | None:
    """For the arm shuffled_teacher: whose answer each training image is taught with, fixed for the run."""
    if training.control != "shuffled_teacher":
        return None
    return same_class_partners(np.asarray(shop.splits.train.labels), shop.config.seed, training.role, training.seed)


def warmed(shop: Workshop, task: WarmUpTask, teacher: Network) -> nn.Module:
    """The finished module of a warm-up, frozen: from the store, or trained now (or from where that was stopped)."""
    folder, plugin = shop.folder(task), registry.get("method", task.method)
    path, warm_up = folder / "module.safetensors", plugin.facts["warm_up"]
    who = (shop.config.seed, "warm_up", task.teacher.seed)
    torch.manual_seed(torch_seed(*who, "initialisation"))
    module: nn.Module = warm_up.make(teacher, task.settings).to(shop.device)
    if not path.exists():
        with locked(folder, f"another process is at {task.label} in {folder}", waiting=shop.progress.line):
            if not path.exists():
                shop.progress.line(f"  {task.label}")
                _warm(shop, task, module, teacher, warm_up, who)
    clear_checkpoints(folder)
    try:
        record = read_json(folder / "record.json")
        if record["weights"] != file_sha256(path):
            raise ValueError("its record tells of other contents")
        module.load_state_dict(load_file(path, device=str(shop.device)))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, StudyError) as error:
        raise RunError(f"{path} is damaged or not what {task.label} left ({error}). Delete {folder} to train it again.") from error
    write_json(shop.out / "warm_ups" / task.run / "record.json", record)  # the study tells what was done, whatever becomes of the store
    return frozen(module)


def _warm(shop: Workshop, task: WarmUpTask, module: nn.Module, teacher: Network, warm_up: WarmUp, who: tuple[Any, ...]) -> None:
    folder = shop.folder(task)
    objective = Objective(module, None, Needs(student_taps=warm_up.taps), warm_up.views)
    trainer = Trainer(
        teacher, shop.splits.train, shop.splits.validation, task.recipe, who=who, folder=folder, objective=objective, device=shop.device,
        progress=shop.progress, description=task.label,
    )  # fmt: skip
    resumed, watch = any((folder / "checkpoint").glob("step-*")), Stopwatch()
    history = trainer.run()
    note_epochs(
        shop.store, warm_up_facts(shop, task), history, watch.seconds, resumed=resumed, n_validation=len(shop.splits.validation)
    )  # fmt: skip
    tensors: Mapping[str, torch.Tensor] = {name: value.cpu().contiguous() for name, value in module.state_dict().items()}
    content = save(dict(tensors))
    record = {
        "format": 1, "label": task.label, "settings": dict(task.settings), "weights": hashlib.sha256(content).hexdigest(),
        "history": [row.model_dump() for row in history],
    }  # fmt: skip
    write_json(folder / "record.json", record)
    write_atomically(folder / "module.safetensors", lambda file: file.write(content))  # last: it says that all is there
