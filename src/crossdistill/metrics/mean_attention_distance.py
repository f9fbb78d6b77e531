"""How far attention looks, per layer and head, over uniform attention (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929, appendix D.7)."""

import numpy as np

from crossdistill.core.registry import metric
from crossdistill.core.types import Estimate
from crossdistill.metrics._answers import finite, mean_over_images, not_empty


@metric(source="Dosovitskiy et al., ICLR 2021", unit="share of uniform")
def mean_attention_distance(attention_distance: np.ndarray) -> dict[str, Estimate]:
    """`layer1`, ... (the mean of its heads) and `layer1_head1`, ...: mean distance over that of uniform attention, t intervals over images.

    `attention_distance` is what the instrument of that name gave, [images, layers, heads], or [draws, images, layers, heads]: draws
    are averaged inside an image first. 1 is a head that looks everywhere alike; above 1 one that avoids what is near. Attention
    is not influence: `effective_receptive_field` measures that, and CNNs too.

    >>> {name: e.value for name, e in mean_attention_distance(np.array([[[0.25, 0.75]], [[0.75, 0.75]]])).items()}
    {'layer1': 0.625, 'layer1_head1': 0.5, 'layer1_head2': 0.75}
    """
    distances = finite(not_empty(np.asarray(attention_distance, dtype=np.float64), "attention_distance"), "attention_distance")
    if distances.ndim not in (3, 4):
        raise ValueError(f"attention_distance must be [images, layers, heads], after draws where there are several, got {distances.shape}")
    distances = distances.mean(axis=0) if distances.ndim == 4 else distances
    figures: dict[str, Estimate] = {}
    for layer, of_layer in enumerate(np.moveaxis(distances, 1, 0), start=1):
        figures[f"layer{layer}"] = mean_over_images(of_layer.mean(axis=1), unit="share of uniform")
        for head, of_head in enumerate(of_layer.T, start=1):
            figures[f"layer{layer}_head{head}"] = mean_over_images(of_head, unit="share of uniform")
    return figures
