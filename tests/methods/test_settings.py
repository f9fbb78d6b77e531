"""Every setting changes the terms that it is about, and no others; and the published weights of every method."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crossdistill.core import registry
from crossdistill.core.types import Batch, Clock, ImageSet
from crossdistill.models._build import build_network
from crossdistill.ops.modes import frozen
from crossdistill.train.objective import make_objective, published_weights

CLASSES, STEPS, BATCH = 4, 3, 6


def images() -> ImageSet:
    random, n = np.random.default_rng(0), STEPS * BATCH
    pixels = random.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    return ImageSet(pixels, np.arange(n) % CLASSES, np.arange(n).astype(str), tuple("abcd"))


def objective_of(name: str, settings: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The objective of a ViT's CNN student, made the same way each time, with both networks."""
    torch.manual_seed(0)
    student = build_network("small/resnet8", CLASSES, (32, 32))
    teacher = frozen(build_network("small/vit", CLASSES, (32, 32), settings={"width": 32, "depth": 4, "heads": 2}))
    plugin, rng = registry.get("method", name), torch.Generator().manual_seed(1)
    torch.manual_seed(2)
    parsed = plugin.parse(settings)
    objective = make_objective(
        plugin, parsed, published_weights(plugin, parsed), student=student, teacher=teacher, images=images(), rng=rng
    )
    return objective, student, teacher


@cache
def terms_of(name: str, **settings: Any) -> dict[str, Tensor]:
    """The terms of the third step, by which a memory and its normalisers have moved twice. The networks stay as they are."""
    objective, student, teacher = objective_of(name, settings)
    data, terms = images(), {}
    for step in range(STEPS):
        index = torch.arange(BATCH) + step * BATCH
        pixels, labels = torch.from_numpy(data.images)[index], torch.from_numpy(data.labels)[index]
        targets, shared = torch.eye(CLASSES)[labels], torch.ones(BATCH, dtype=torch.bool)
        batch = Batch(pixels, pixels, labels, targets, index, shared, Clock(step, STEPS, 0, 1))
        with torch.no_grad():
            taught = teacher(pixels, taps=objective.needs.teacher_taps)
            answers = student(pixels, taps=objective.needs.student_taps)
            # The small networks' untrained logits are all but alike; wide apart, a temperature or an exponent shows.
            terms = objective.function(batch, *(spread(activations) for activations in (answers, taught)))
        objective.after_step()
    return terms


def spread(activations: Any) -> Any:
    logits = activations.logits
    return replace(activations, logits=3 * (logits - logits.mean(dim=1, keepdim=True)) / logits.std())


# Method, the settings that both sides share, the setting that differs, the terms that it changes.
CHANGES: list[tuple[str, dict[str, Any], dict[str, Any], set[str]]] = [
    ("kd", {}, {"temperature": 2.0}, {"kd"}),
    ("kd", {}, {"standardize": True}, {"kd"}),
    ("dkd", {}, {"temperature": 2.0}, {"tckd", "nckd"}),
    ("dkd", {}, {"standardize": True}, {"tckd", "nckd"}),
    ("dist", {}, {"temperature": 2.0}, {"inter", "intra"}),
    ("dist", {}, {"standardize": True}, {"inter", "intra"}),
    ("ofa", {}, {"temperature": 2.0}, {"kd", "ofa"}),
    ("ofa", {}, {"eps": 1.5}, {"kd", "ofa"}),
    ("ofa", {"stages": (3, 4)}, {"eps": (1.5, 1.0, 1.0)}, {"ofa"}),
    ("ofa", {"stages": (3, 4)}, {"eps": (1.0, 1.0, 1.5)}, {"kd"}),
    ("ofa", {}, {"stages": (4,)}, {"ofa"}),
    ("fitnet", {}, {"stages": ("stage4",)}, {"hint"}),
    ("fitnet", {}, {"normalize": True}, {"hint"}),
    ("fitnet", {}, {"regressor": "convreg"}, {"hint"}),
    ("attention_transfer", {}, {"stages": ("stage3",)}, {"attention"}),
    ("correlation", {}, {"dimensions": 16}, {"correlation"}),
    ("rsd", {}, {"kappa": 0.1}, {"rsd"}),
    ("crd", {}, {"negatives": "batch"}, {"crd"}),
    ("crd", {}, {"n_negatives": 3}, {"crd"}),
    ("crd", {}, {"temperature": 0.2}, {"crd"}),
    ("crd", {"negatives": "batch"}, {"temperature": 0.2}, {"crd"}),
    ("crd", {}, {"dim": 16}, {"crd"}),
    ("crd", {"negatives": "batch"}, {"dim": 16}, {"crd"}),
    ("crd", {}, {"momentum": 0.9}, {"crd"}),
    ("crd", {}, {"z_momentum": 0.5}, {"crd"}),
    ("frequency_alignment", {}, {"cutoff": 0.8}, {"low", "high"}),
    ("frequency_alignment", {}, {"stage": "stage2"}, {"low", "high"}),
    ("frequency_alignment", {}, {"low_weight": 2.0, "high_weight": 3.0}, set()),
]


@pytest.mark.parametrize(("name", "shared", "setting", "changed"), CHANGES, ids=lambda value: value if isinstance(value, str) else None)
def test_a_setting_changes_the_terms_that_it_is_about_and_no_others(
    name: str, shared: dict[str, Any], setting: dict[str, Any], changed: set[str]
) -> None:
    without, with_it = terms_of(name, **shared), terms_of(name, **{**shared, **setting})
    assert without.keys() == with_it.keys()
    assert {term for term, value in without.items() if not torch.isclose(value, with_it[term], rtol=1e-4)} == changed


@pytest.mark.parametrize("name", sorted({name for name, *_ in CHANGES}))
def test_every_setting_of_these_methods_is_tried_above(name: str) -> None:
    tried = {setting for method, _, settings, _ in CHANGES if method == name for setting in settings}
    assert tried == set(registry.get("method", name).settings.model_fields)


# As the papers, the authors' code or RepDistiller have them; where a setting changes them, for more than one value.
PUBLISHED: list[tuple[str, dict[str, Any], dict[str, float]]] = [
    ("kd", {}, {"ce": 0.1, "kd": 0.9}),
    ("dkd", {}, {"ce": 1.0, "tckd": 1.0, "nckd": 8.0}),
    ("dist", {}, {"ce": 1.0, "inter": 1.0, "intra": 1.0}),
    ("fitnet", {}, {"ce": 1.0, "hint": 100.0}),
    ("attention_transfer", {}, {"ce": 1.0, "attention": 1000.0}),
    ("similarity", {}, {"ce": 1.0, "similarity": 3000.0}),
    ("rkd", {}, {"ce": 1.0, "distance": 25.0, "angle": 50.0}),
    ("pkt", {}, {"ce": 1.0, "pkt": 30000.0}),
    ("correlation", {}, {"ce": 1.0, "correlation": 0.02}),
    ("crd", {}, {"ce": 1.0, "crd": 0.8}),
    ("crd", {"negatives": "batch"}, {"ce": 1.0, "crd": 0.8}),
    ("rsd", {}, {"ce": 1.0, "rsd": 0.1}),
    ("ofa", {}, {"ce": 1.0, "kd": 1.0, "ofa": 1.0}),
    ("frequency_alignment", {}, {"ce": 1.0, "low": 1.0, "high": 1.0}),
    ("frequency_alignment", {"low_weight": 2.0, "high_weight": 0.5}, {"ce": 1.0, "low": 2.0, "high": 0.5}),
    ("deit", {}, {"ce": 0.5, "deit": 0.5}),
    ("deit", {"kind": "soft", "alpha": 0.1}, {"ce": 0.9, "deit": 0.1}),
    ("cskd", {}, {"ce": 0.5, "deit": 0.5, "cskd": 1.0}),
    ("cskd", {"alpha": 0.2}, {"ce": 0.8, "deit": 0.2, "cskd": 1.0}),
    ("vlfkd", {}, {"ce": 0.5, "decoupled": 0.5, "global": 0.1, "patch": 0.1, "linguistic": 0.5}),
    ("vlfkd", {"mode": "seed"}, {"ce": 0.0, "decoupled": 1.0, "global": 0.5, "patch": 0.3, "linguistic": 0.2}),
    ("capd", {}, {"ce": 1.0, "attention": 1.0, "value": 1.0, "features": 1.0, "generator": 0.1}),
    ("capd", {"variant": "release"}, {"ce": 1.0, "attention": 0.2, "value": 0.05, "features": 0.05, "logits": 1.0, "token": 1.0}),
    ("sskd", {}, {"ce": 0.1, "kd": 0.9, "tf": 2.7, "ss": 10.0}),
]


@pytest.mark.parametrize(("name", "settings", "expected"), PUBLISHED, ids=lambda value: value if isinstance(value, str) else None)
def test_the_published_weights_are_the_papers(name: str, settings: dict[str, Any], expected: dict[str, float]) -> None:
    assert published_weights(registry.get("method", name), settings) == pytest.approx(expected, rel=1e-12)


def test_the_table_of_weights_holds_every_method() -> None:
    assert {name for name, *_ in PUBLISHED} == set(registry.names("method"))
