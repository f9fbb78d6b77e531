"""What all methods on features share: odd inputs, and a few steps of the real loop with their own terms alone."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crossdistill import functional
from crossdistill.core import registry
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import ImageSet
from crossdistill.methods.attention_transfer import attention_transfer_loss
from crossdistill.methods.correlation import correlation_loss
from crossdistill.methods.fitnet import fitnet_loss
from crossdistill.methods.pkt import pkt_loss
from crossdistill.methods.rkd import rkd_loss
from crossdistill.methods.similarity import similarity_loss
from crossdistill.models._build import build_network
from crossdistill.ops.modes import frozen
from crossdistill.train.loop import Training
from crossdistill.train.objective import make_objective, method_weights, published_weights

MAP, VECTOR = (6, 4, 4), (12,)
LOSSES: dict[str, tuple[Callable[..., Tensor], tuple[int, ...]]] = {
    "fitnet": (fitnet_loss, MAP),
    "attention_transfer": (attention_transfer_loss, MAP),
    "similarity": (similarity_loss, MAP),
    "rkd": (rkd_loss, VECTOR),
    "pkt": (pkt_loss, VECTOR),
    "correlation": (correlation_loss, VECTOR),
}


def features(n_images: int, shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(n_images, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("n_images", [1, 2, 5])
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e4], ids=["dead", "faint", "saturated"])
@pytest.mark.parametrize("offset", [0.0, 1.0], ids=["", "with an offset"])
def test_loss_and_gradient_are_finite(name: str, n_images: int, scale: float, offset: float) -> None:
    loss_of, shape = LOSSES[name]
    student = (scale * features(n_images, shape, 0) + offset).requires_grad_()
    for teacher in (features(n_images, shape, 1), torch.zeros(n_images, *shape)):
        loss = loss_of(student, teacher)
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken_as_float32(name: str, half: torch.dtype) -> None:
    loss_of, shape = LOSSES[name]
    student, teacher = features(4, shape, 0).to(half), features(4, shape, 1).to(half)
    loss = loss_of(student, teacher)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, loss_of(student.float(), teacher.float()))


PUBLIC: dict[str, tuple[Callable[..., Any], tuple[int, ...], bool]] = {  # shape of one image, whether it takes labels
    "kd": (functional.kd, VECTOR, False),
    "dkd": (functional.dkd, VECTOR, True),
    "dist": (functional.dist, VECTOR, False),
    "standardize_logits": (lambda student, teacher: functional.standardize_logits(student) * teacher, VECTOR, False),
    "ofa": (partial(functional.ofa, eps=1.5), VECTOR, True),
    "fitnet": (functional.fitnet, MAP, False),
    "attention_transfer": (functional.attention_transfer, MAP, False),
    "similarity": (functional.similarity, MAP, False),
    "rkd": (functional.rkd, VECTOR, False),
    "pkt": (functional.pkt, VECTOR, False),
    "correlation": (functional.correlation, VECTOR, False),
    "rsd": (functional.rsd, VECTOR, False),
    "crd_batch": (lambda *arguments: functional.crd_batch(*arguments)["total"], VECTOR, True),
    "frequency_alignment": (lambda *maps: torch.stack(list(functional.frequency_alignment(*maps).values())), MAP, False),
}


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", PUBLIC)
def test_autocast_around_a_loss_changes_no_bit_of_it(name: str, half: torch.dtype) -> None:
    loss_of, shape, labelled = PUBLIC[name]
    student, teacher = (scale * features(6, shape, seed) for scale, seed in ((30, 0), (1000, 1)))  # 1000 squared is no float16
    arguments = [student.requires_grad_(), teacher, *([torch.arange(6)] if labelled else [])]

    plain = loss_of(*arguments)
    with torch.autocast("cpu", half):
        under = loss_of(*arguments)
    gradients = [torch.autograd.grad(loss.sum(), student)[0] for loss in (plain, under)]
    assert plain.isfinite().all()
    assert torch.equal(plain, under)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_around_crds_memory_changes_no_bit_of_it(half: torch.dtype) -> None:
    student, teacher = (torch.nn.functional.normalize(features(4, (8,), seed)) for seed in (0, 1))
    index, candidates = torch.arange(4), torch.randint(20, (4, 6), generator=torch.Generator().manual_seed(2))
    found = []
    for autocast in (False, True):
        torch.manual_seed(0)
        memory = functional.CRDMemory(20, 8, n_negatives=5)
        with torch.autocast("cpu", half, enabled=autocast):
            total = memory(student, teacher, index, candidates)["total"]
        found.append({"total": total, **memory.state_dict()})
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


UNFIT = [
    *[(name, (4, *shape), (1, *shape)) for name, (_, shape, labelled) in PUBLIC.items() if not labelled and name != "standardize_logits"],
    ("similarity", (4,), (4,)),
    ("attention_transfer", (4, 6), (4, 6)),
    ("attention_transfer", (4, 6, 4), (4, 6, 4)),
    ("frequency_alignment", (6, 4, 4), (6, 4, 4)),
    *[(name, shape, shape) for name in ("rkd", "pkt", "correlation", "rsd") for shape in ((12,), (4, 3, 2))],
]


@pytest.mark.parametrize(("name", "student", "teacher"), UNFIT)
def test_unequal_batches_and_wrong_axes_are_refused_and_not_broadcast(name: str, student: Any, teacher: Any) -> None:
    loss_of, _, _ = PUBLIC[name]
    with pytest.raises(ValueError, match=r"must (be|have) .*, got \("):
        loss_of(torch.ones(student), torch.ones(teacher))


def images(n: int, seed: int) -> ImageSet:
    labels = np.arange(n) % 3
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 3, 16, 16), dtype=np.uint8)
    return ImageSet(pixels, labels.astype(np.int64), np.arange(n).astype(str), tuple("abc"))


@pytest.mark.parametrize("pair", ["vit to cnn", "cnn to vit"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *[(name, {}) for name in LOSSES],
        ("fitnet", {"normalize": True, "stages": ("stage2", "last")}),
        ("fitnet", {"regressor": "convreg", "stages": ("last",)}),
    ],
)
def test_its_own_terms_reach_the_students_first_layer_and_move_what_they_train(
    name: str, settings: dict[str, Any], pair: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    made = {
        "cnn": build_network("small/resnet8", 3, (16, 16)),
        "vit": build_network("small/vit", 3, (16, 16), settings={"width": 16, "depth": 3, "heads": 2}),
    }
    teacher, student = (made[family] for family in pair.split(" to "))
    plugin = registry.get("method", name)
    weights = method_weights(published_weights(plugin, settings), weight=1.0, weights={"ce": 0.0})
    train = images(20, 1)
    objective = make_objective(
        plugin, plugin.parse(settings), weights, student=student, teacher=frozen(teacher), images=train, rng=torch.Generator()
    )
    first = next(parameter for parameter in student.parameters() if parameter.ndim == 4)
    watched = [first, *objective.auxiliary_parameters()]
    before = [parameter.detach().clone() for parameter in watched]
    recipe = TrainingConfig(
        epochs=1, batch_size=8, accumulate=3, precision="fp32", threads=1, learning_rate=1e-2, optimizer="adamw", weight_decay=0.0
    )  # micro-batches of 3, 3 and 2
    training = Training(student, train, images(9, 2), recipe, who=(0, "student", 0), folder=tmp_path, objective=objective, teacher=teacher)
    history = training.run()
    assert set(history[0].terms) == set(weights)
    for parameter, old in zip(watched, before, strict=True):
        assert not torch.equal(parameter, old)
