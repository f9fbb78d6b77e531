"""What a training step costs beyond its networks: the input side, and kd's own arithmetic.

    python benchmarks/steps.py

`input`: a batch of augmented images and their normalisation, over a training step of small/resnet20 at batch 128 (target:
under 1.5 %); beside it, a torchvision DataLoader with 2 workers that does the same augmentation. `kd`: a whole kd step of the
loop over the floor, teacher forward + student forward, backward and optimiser step of the same networks (target: 1.05).
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from crossdistill.core import registry
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import ImageSet
from crossdistill.models._build import build_network
from crossdistill.ops.memory import keep_freed_memory
from crossdistill.ops.modes import frozen
from crossdistill.train.loop import Training
from crossdistill.train.objective import make_objective
from crossdistill.train.optimizers import make_optimizer
from crossdistill.train.precision import autocast, resolved_precision
from protocol import paired_ratio, save_result

BATCH, IMAGES, CLASSES, THREADS = 128, 10_000, 10, 2
BLOCK = 20


def images() -> ImageSet:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (IMAGES, 3, 32, 32), dtype=np.uint8)
    labels = random.integers(0, CLASSES, IMAGES)
    return ImageSet(pixels, labels, np.arange(IMAGES).astype(str), tuple(map(str, range(CLASSES))))


def network(name: str) -> Any:
    torch.manual_seed(0)
    made = build_network(name, CLASSES, (32, 32))
    return made.to(memory_format=torch.channels_last) if made.family == "cnn" else made


def training(data: ImageSet, *, with_teacher: bool) -> Training:
    recipe = TrainingConfig(epochs=10, batch_size=BATCH, threads=THREADS)
    student, teacher, objective = network("small/resnet20"), None, None
    if with_teacher:
        teacher = frozen(network("small/vit"))
        kd = registry.get("method", "kd")
        objective = make_objective(kd, {}, kd.facts["weights"], student=student, teacher=teacher, images=data, rng=torch.Generator())
    folder = Path(tempfile.mkdtemp())
    return Training(
        student, data, data.subset(np.arange(10)), recipe, who=(0, "student", 0), folder=folder, objective=objective, teacher=teacher
    )


class Augmented(Dataset[Any]):
    """The same augmentation as users write it with torchvision: reflect, crop, flip, float, normalise, image by image."""

    def __init__(self, data: ImageSet) -> None:
        self.images = torch.from_numpy(data.images)
        self.transform = v2.Compose([
            v2.RandomCrop(32, padding=4, padding_mode="reflect"), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.transform(self.images[i])


def input_side(data: ImageSet) -> dict[str, Any]:
    run = training(data, with_teacher=False)
    index = torch.from_numpy(np.random.default_rng(1).permutation(IMAGES)[:BATCH])
    ours = lambda: run.network.normalised(run.batch(index, 0).images)  # noqa: E731
    step = lambda: run.step(index, 0)  # noqa: E731
    share = paired_ratio(ours, step, target=0.015)
    loader = iter(DataLoader(Augmented(data), BATCH, sampler=torch.randint(0, IMAGES, (10**6,)).tolist(), num_workers=2))
    # In blocks: what the workers prefetched while the other side ran is 4 of a block's batches.
    block = lambda load: [load() for _ in range(BLOCK)]  # noqa: E731
    beside = paired_ratio(lambda: block(lambda: next(loader)), lambda: block(ours))
    return {
        "network": "small/resnet20",
        "batch": BATCH,
        "share_of_a_step": share,
        f"torchvision_loader_with_2_workers_over_ours_{BLOCK}_batches": beside,
    }


def kd_step(data: ImageSet) -> dict[str, Any]:
    run = training(data, with_teacher=True)
    student, teacher = network("small/resnet20").train(), run.teacher
    assert teacher is not None
    optimizer = make_optimizer(list(student.parameters()), run.recipe, modules=[student])
    precision, cpu = resolved_precision("auto", torch.device("cpu")), torch.device("cpu")
    index = torch.from_numpy(np.random.default_rng(1).permutation(IMAGES)[:BATCH])
    shown = torch.from_numpy(data.images[:BATCH]).contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(data.labels[:BATCH])

    def floor() -> None:
        with autocast(precision, cpu):
            with torch.no_grad():
                teacher(shown)
            logits = student(shown).logits
        torch.nn.functional.cross_entropy(logits, labels).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    over = paired_ratio(lambda: run.step(index, 0), floor, target=1.05)
    return {"student": "small/resnet20", "teacher": "small/vit", "batch": BATCH, "precision": precision, "kd_step_over_floor": over}


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    keep_freed_memory()  # as `Training.run` does
    made = images()
    save_result("steps", {"input": input_side(made), "kd": kd_step(made)})
