"""Whose answer each image is taught with where the teacher's knowledge of images is to be removed and its knowledge of classes kept."""

import numpy as np

from crossdistill.core.errors import SettingError
from crossdistill.core.seeds import Part, permutation


def same_class_partners(labels: np.ndarray, *who: Part) -> np.ndarray:
    """For each image another image of its class, int64 [images]: a permutation, keyed by `who`, without fixed points.

    Raises SettingError where a class has a single image, or an image no label.

    >>> same_class_partners(np.array([0, 1, 0, 1]), 0).tolist()
    [2, 3, 0, 1]
    """
    classes, counts = np.unique(labels, return_counts=True)
    if classes[0] < 0 or counts.min() < 2:
        raise SettingError(
            "the arm shuffled_teacher exchanges images of one class: each needs a label (transfer images have none), and each class two "
            "images or more"
        )
    order = permutation(len(labels), *who, "partners")
    partners = np.empty(len(labels), np.int64)
    for label in classes:
        members = order[labels[order] == label]
        partners[members] = np.roll(members, 1)  # one random cycle through the class
    return partners
