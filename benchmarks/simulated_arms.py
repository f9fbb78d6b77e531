"""The arms of a simulated study: their means, their run effects, and what teacher runs pass on to their students."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from simulated_studies import CLEAN, TEACHER, Images, Network, network

PROBE = "probe"
OF_CLEAN, OF_PROBE, TEACHER_CLEAN = 0.80, 0.50, 0.85  # mean accuracies of independents, and of teachers
RUN = 0.008  # standard deviation of a run's accuracy over all images; on 1,000 images it is 1.5 points
TEACHER_RUN = 0.020  # that of a teacher run


class World:
    """One study in the making: its images and its run effects, which are correlated by one half between sets."""

    def __init__(
        self,
        random: np.random.Generator,
        runs: int,
        n_images: int,
        *,
        probes: Sequence[str] = (PROBE,),
        spread: float = RUN,
        heavy: bool = False,
    ) -> None:
        self.random, self.runs, self.spread, self.heavy = random, runs, spread, heavy
        self.probes, self.images = probes, Images(random, n_images, (CLEAN, *probes))

    def effects(self, spread: float) -> dict[str, float]:
        """A run's effect on each set; from Student's t with 3 degrees of freedom where tails are heavy."""
        drawn = self.random.standard_t(3, 1 + len(self.images.difficulty)) / math.sqrt(3) if self.heavy else None
        common, *own = self.random.standard_normal(1 + len(self.images.difficulty)) if drawn is None else drawn
        return {name: spread * math.sqrt(0.5) * (common + one) for name, one in zip(self.images.difficulty, own, strict=True)}

    def arm(self, arm: str, mean: Callable[[str, int], float], *, spread: float | None = None, **facts: Any) -> list[Network]:
        """An untaught arm: `mean` gives the accuracy on a set expected of a run seed."""
        made = []
        for seed in range(self.runs):
            effects = self.effects(self.spread if spread is None else spread)
            made.append(network(self.images, self.random, arm, seed, {name: mean(name, seed) + effects[name] for name in effects}, **facts))
        return made

    def independents(self, arm: str = "independent") -> list[Network]:
        return self.arm(arm, lambda name, _: OF_CLEAN if name == CLEAN else OF_PROBE)

    def teachers(self, gap: float, *, student: str = TEACHER) -> list[Network]:
        """Teacher runs whose mean accuracy on every probe is `gap` above the independents'."""
        return self.arm("teacher", lambda name, _: TEACHER_CLEAN if name == CLEAN else OF_PROBE + gap, spread=TEACHER_RUN, student=student)

    def students(
        self, arm: str, teachers: Sequence[Network], passes: float, *, spread: float | None = None, better: Sequence[float] | None = None
    ) -> list[Network]:  # fmt: skip
        """Student s of teacher s: `passes` of the teacher's distance from the independents, and `better` by so much for other reasons."""
        made = []
        for seed, teacher in enumerate(teachers):
            accuracies = self.effects(self.spread if spread is None else spread)
            for name in accuracies:
                start = OF_CLEAN if name == CLEAN else OF_PROBE + passes * (teacher.accuracies[name] - OF_PROBE)
                accuracies[name] += start + (better[seed] if better and name != CLEAN else 0.0)
            made.append(network(self.images, self.random, arm, seed, accuracies, teacher=teacher, passes=passes))
        return made

    def truth(self, probe: str, students: tuple[float, float], controls: tuple[float, float]) -> tuple[float, float]:
        """The true difference of two arms, each (mean, standard deviation), on these images and over all images."""
        return self.images.mean(probe, *students) - self.images.mean(probe, *controls), students[0] - controls[0]
