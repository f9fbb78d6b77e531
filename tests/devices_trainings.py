"""Trainings that one process does alone and two do together, for tests/test_devices.py, which compares what came out.

As a script (RANK, WORLD_SIZE and a file to meet at in the environment) it is one of the processes, and leaves RANK.pt.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossdistill.core import registry
from crossdistill.core.errors import CrossdistillError, SettingError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import ImageSet
from crossdistill.models._build import build_network
from crossdistill.ops import parallel
from crossdistill.ops.modes import frozen
from crossdistill.train.loop import Training
from crossdistill.train.objective import Objective, make_objective, published_weights

CLASSES = 3
IN_TWO = {"accumulate": 2}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # name -> method, its settings, recipe
    "kd": ("kd", {}, {}),
    "kd in two": ("kd", {}, IN_TWO),
    "kd mixed": ("kd", {}, {"mixup": 0.4, "cutmix": 1.0, **IN_TWO}),
    "dkd": ("dkd", {}, {}),
    "dist": ("dist", {}, IN_TWO),
    "rkd": ("rkd", {}, {}),
    "similarity": ("similarity", {}, {}),
    "pkt": ("pkt", {}, {}),
    "correlation": ("correlation", {"dimensions": 8}, {}),
    "rsd": ("rsd", {}, IN_TWO),
    "crd": ("crd", {"n_negatives": 12, "dim": 16, "z_momentum": 0.9}, {"epochs": 2}),
    "crd in two": ("crd", {"n_negatives": 12, "dim": 16}, IN_TWO),
    "crd in the batch": ("crd", {"negatives": "batch", "dim": 16}, {}),
    "vlfkd": ("vlfkd", {"gram": "batch", "linguistic_dim": 8, "reduction": "positions"}, {}),
    "vlfkd, seed": ("vlfkd", {"mode": "seed", "linguistic_dim": 8}, {}),
    "sskd": ("sskd", {}, IN_TWO),
    "capd": ("capd", {}, IN_TWO),
    "ofa": ("ofa", {"stages": (3,)}, {}),
}


def image_set(n: int, seed: int, *, unlabelled: int = 0) -> ImageSet:
    random = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    images = random.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8)
    labels[random.permutation(n)[:unlabelled]] = -1
    return ImageSet(images, labels.astype(np.int64), np.arange(n).astype(str), tuple("abc"))


def small(name: str, seed: int, **settings: Any) -> Any:
    torch.manual_seed(seed)
    return build_network(f"small/{name}", CLASSES, (16, 16), settings=settings)


def training(method: str, settings: dict[str, Any], recipe: dict[str, Any], folder: Path, *, student: Any = None) -> Training:
    """A training of two steps, a quarter of whose images have no label: so the ranks have more or fewer labels."""
    teacher = frozen(small("vit", 99, width=16, depth=2, heads=2))
    student = student or small("vit", 1, width=16, depth=2, heads=2, drop_path=0.0)
    data, plugin = image_set(32, 1, unlabelled=8), registry.get("method", method)
    settings = plugin.parse(settings)
    torch.manual_seed(2)
    warm_up = plugin.facts["warm_up"]
    warm = frozen(warm_up.make(teacher, plugin.complete(settings))) if warm_up else None
    weights, rng = published_weights(plugin, settings), torch.Generator().manual_seed(5)
    objective = make_objective(plugin, settings, weights, student=student, teacher=teacher, images=data, rng=rng, warm=warm)
    # Not AdamW: where a gradient is almost zero it turns the rounding error of a sum into a step of full size.
    chosen = {
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "epochs": 1,
        "batch_size": 16,
        "precision": "fp32",
        "threads": 1,
        "warmup_epochs": 0,
        "devices": parallel.world().size,
    }
    return Training(
        student, data, image_set(9, 2), TrainingConfig(**(chosen | recipe)), who=(0, "student", 0),
        folder=folder, objective=objective, teacher=teacher,
    )  # fmt: skip


def outcome(trained: Training) -> dict[str, Any]:
    """What a training left: its log, and what it trained."""
    module = trained.objective.module
    rows = [
        {"loss": row.loss, "accuracy": row.train_accuracy, "validation": row.validation_accuracy, **row.terms} for row in trained.history
    ]
    return {"log": rows, "student": trained.network.state_dict(), "module": {} if module is None else module.state_dict()}


def trained(name: str, folder: Path) -> dict[str, Any]:
    made = training(*CASES[name], folder)
    made.run()
    return outcome(made)


def interrupted(folder: Path, *, at: int | None) -> dict[str, Any]:
    """CRD for a student with BatchNorm; where `at` is given, broken off after that step in the middle of an epoch, and begun once more."""
    settings, recipe = {"n_negatives": 12, "dim": 16}, {"batch_size": 8, "epochs": 2, "ema": 0.9}
    make = lambda: training("crd", settings, recipe, folder, student=small("resnet8", 3))  # noqa: E731
    made = make()
    if at is not None:
        step = made.step

        def last(index: Any, epoch: int) -> None:
            step(index, epoch)
            if made.clock.step == at:
                made._save()
                raise KeyboardInterrupt

        made.step = last  # type: ignore[method-assign]
        try:
            made.run()
        except KeyboardInterrupt:
            made = make()
    made.run()
    return outcome(made) | {"batch_norm": made.batch_norm}


def exchanged() -> dict[str, Any]:
    """What the ranks tell each other, asked in the same order on each."""
    place = parallel.world()
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]]) + 10 * place.rank
    rows.requires_grad_()
    whole = parallel.gathered(rows)
    (whole.square() * torch.tensor([[1.0], [2.0], [3.0], [4.0]])[: len(whole)]).sum().backward()
    a, b, c = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    a.grad = torch.tensor([1.0, 3.0]) * (1 + place.rank)
    b.grad = None if place.rank == 0 else torch.tensor([4.0, 8.0])
    parallel.average_gradients([a, b, c])
    torch.manual_seed(0)
    found = {
        "gathered": whole.detach(), "gradient": rows.grad, "integers": parallel.gathered(torch.tensor([place.rank])),
        "gradients": [a.grad, b.grad, c.grad], "drawn": parallel.drawn_rows(lambda n: torch.rand(n, 2), 4 // place.size),
        "own": parallel.own_rows(torch.arange(8)), "averaged": parallel.averaged(torch.tensor(place.rank)),
        "agreed": [parallel.agreed(False), parallel.agreed(place.rank == 1)], "from_first": parallel.from_first(place.rank + 0.5),
        "told": parallel.told(f"from {place.rank}"),
    }  # fmt: skip
    with parallel.alone():
        found["alone"] = [parallel.world().size, parallel.agreed(place.rank == 1)]
        with parallel.together():
            found["together"] = parallel.world().size
    return found


def prepared(folder: Path) -> dict[str, Any]:
    """Rank 0 goes first; its refusal is everybody's, and that of another rank ends all."""
    with parallel.first_ahead():
        found: dict[str, Any] = {"there": (folder / "made").exists()}
        (folder / "made").touch()
    for who in (0, 1):
        try:
            with parallel.first_ahead():
                if parallel.world().size == 1 and int(os.environ["RANK"]) == who:
                    raise SettingError(f"no, says {who}")
        except CrossdistillError as error:
            found[f"refused by {who}"] = f"{type(error).__name__}: {error}"
    return found


def refused(folder: Path) -> list[str]:
    found = []
    for recipe in ({"devices": 3}, {"batch_size": 15}, {"batch_size": 12, "accumulate": 4}):
        try:
            training("kd", {}, recipe, folder)
        except SettingError as error:
            found.append(str(error))
    return found


def diverged(folder: Path) -> str:
    """A loss that breaks on one rank alone, with finite gradients, is one that all of them see."""
    made = training("kd", {}, {}, folder)
    function = made.objective.function
    spoilt = lambda *about: {n: v + (float("inf") if parallel.world().rank else 0.0) for n, v in function(*about).items()}  # noqa: E731
    made.objective = Objective(spoilt, made.objective.weights, made.objective.needs)
    try:
        made.run()
    except CrossdistillError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rank = os.environ["RANK"]
    with parallel.started(torch.device("cpu"), init_method=(folder / "rendezvous").as_uri()):
        found = {name: trained(name, folder / name) for name in CASES}
        found |= {
            "exchanged": exchanged(), "prepared": prepared(folder), "refused": refused(folder / "refused"),
            "diverged": diverged(folder / "diverged"),
            "undisturbed": interrupted(folder / "undisturbed", at=None), "resumed": interrupted(folder / "resumed", at=5),
            "again": trained("capd", folder / "again"),
        }  # fmt: skip
        torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
