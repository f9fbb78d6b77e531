"""How often each class is answered or named: the marginals from which agreement by chance is computed."""

import numpy as np


def coded(*answers: np.ndarray) -> tuple[list[np.ndarray], int]:
    """The same answers as integers from 0 in one code for all of them, shapes kept, and the number of classes that occur.

    >>> coded(np.array(["dog", "cat"]), np.array([["cat", "cow"]]))
    ([array([2, 0]), array([[0, 1]])], 3)
    """
    classes, codes = np.unique(np.concatenate([np.ravel(values) for values in answers]), return_inverse=True)
    ends = np.cumsum([np.size(values) for values in answers])[:-1]
    return [part.reshape(np.shape(values)) for part, values in zip(np.split(codes, ends), answers, strict=True)], len(classes)


def class_shares(codes: np.ndarray, n_classes: int) -> np.ndarray:
    """The share of each class among the codes, [classes]; with draws, the mean of the draws' shares."""
    return np.bincount(codes.ravel(), minlength=n_classes) / codes.size
