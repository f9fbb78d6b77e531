"""The largest error consistency that two accuracies allow (Cohen's kappa maximum, 1960; Geirhos et al., NeurIPS 2020, arXiv 2006.16736)."""

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._error_table import ErrorTable


@metric(source="Cohen, Educational and Psychological Measurement 1960", unit="kappa; share")
def consistency_ceiling(correct_a: np.ndarray, correct_b: np.ndarray) -> dict[str, Estimate]:
    """What `error_consistency` is made of: its `ceiling`, the part `reached`, and the shares `observed` and `expected`.

    `ceiling` is the kappa of two networks of these accuracies whose errors overlap as far as they can, (1 - |p_a - p_b| - c_exp) /
    (1 - c_exp): .15 for .95 beside .60. `reached` is kappa / ceiling; its interval is wide where the ceiling is low. `observed` and
    `expected` are the shares of images on which both are right or both wrong, as counted and by chance. Percentile intervals over images.

    >>> found = consistency_ceiling(np.array([1, 1, 0, 0]), np.array([1, 1, 0, 1]))
    >>> {name: estimate.value for name, estimate in found.items()}
    {'ceiling': 0.5, 'reached': 1.0, 'observed': 0.75, 'expected': 0.5}
    """
    table = ErrorTable.of(correct_a, correct_b)
    if table.refusal:
        refused = Estimate.not_measurable(table.refusal, n=table.n, unit="kappa")
        return {"ceiling": refused, "reached": refused, **table.estimates(observed="share", expected="share")}
    return table.estimates(ceiling="kappa", reached="part of the ceiling", observed="share", expected="share")
