"""How alike the layers of students, their teachers and the independents are: CKA, layers by layers."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np

from crossdistill.compare.observed import ObservedRun, Pair
from crossdistill.core.records import SimilarityRow
from crossdistill.core.types import Estimate
from crossdistill.metrics.cka import FEWEST, Kernels, cka_of, kernels_of

FEATURES = "features"
"""The instrument whose measurements are compared."""

FORMS = ("_grid", "_class_token")
"""What layer names end in; layers are compared in the same form."""

HELD = 8
"""Networks whose kernels stay in memory: a teacher, an independent and their students follow one another."""

Layers = Mapping[str, Kernels | str]
"""The kernels of a network's layers by name, or why there are none."""


def similarity_table(runs: Sequence[ObservedRun], pairs: Sequence[Pair]) -> list[SimilarityRow]:
    """CKA of each student with its teacher, of the independent of its seed with that teacher, and of the student with that independent.

    Layers by layers: vectors with vectors, grids with grids, class tokens with class tokens. Two runs are compared once, however
    many students share them. Students are those of the pairs' methods and of their controls; runs without features have no row,
    and one whose features cannot be had has a single one, with the reason.
    """
    by_name = {run.record.run: run for run in runs if FEATURES in run.measured}

    @lru_cache(HELD)
    def layers(name: str) -> Layers:
        return _layers(by_name[name])

    together = list(dict.fromkeys(compared_networks(runs, pairs)))
    return [
        row
        for a, b in together
        if a in by_name and b in by_name
        for row in _rows(a, b, layers(a), layers(b))
    ]  # fmt: skip


def compared_networks(runs: Sequence[ObservedRun], pairs: Sequence[Pair]) -> Iterator[tuple[str, str]]:
    """The names of the runs to be compared, those of one seed after one another."""
    independents = {(run.record.student, run.record.seed): run.record.run for run in runs if run.record.arm == "independent"}
    for pair in pairs:
        teachers = {pair.teacher, pair.control_teacher} - {None}
        students = [run.record for run in runs if run.record.student == pair.student and run.record.teacher in teachers]
        for student in sorted((s for s in students if s.teacher_run), key=lambda s: s.seed):
            assert student.teacher_run is not None
            yield student.run, student.teacher_run
            if independent := independents.get((student.student, student.seed)):
                yield independent, student.teacher_run
                yield student.run, independent


def _layers(run: ObservedRun) -> Layers:
    features = run.measured[FEATURES]
    if isinstance(features, str):
        return {"pooled": features}
    return {name: _kernels(name, values) for name, values in features.items()}


def _kernels(name: str, features: np.ndarray) -> Kernels | str:
    if len(features) < FEWEST:
        return f"CKA needs at least {FEWEST} images, and {len(features)} were measured"
    return kernels_of(features, f"the features at {name}")


def _rows(a: str, b: str, of_a: Layers, of_b: Layers) -> Iterator[SimilarityRow]:
    for layer_a, kernels_a in of_a.items():
        for layer_b, kernels_b in of_b.items():
            if _form(layer_a) == _form(layer_b):
                found = _similarity(kernels_a, kernels_b)
                yield SimilarityRow(
                    a=a, b=b, layer_a=layer_a, layer_b=layer_b, value=found.value, low=found.low, high=found.high, n=found.n,
                    status=found.status, reason=found.reason,
                )  # fmt: skip


def _form(layer: str) -> str:
    return next((form for form in FORMS if layer.endswith(form)), "")


def is_vector(layer: str) -> bool:
    """Whether a layer, by its name, is pooled over positions."""
    return not _form(layer)


def _similarity(a: Kernels | str, b: Kernels | str) -> Estimate:
    for refusal in (a, b):
        if isinstance(refusal, str):
            return Estimate.not_measurable(refusal, unit="CKA")
    return cka_of(a, b)  # type: ignore[arg-type]
