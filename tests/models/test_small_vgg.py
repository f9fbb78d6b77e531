from itertools import pairwise

import pytest
import torch

from crossdistill.core.errors import SettingError, UnknownNameError
from crossdistill.models._build import build_network


def test_its_four_stages_are_halved_in_between():
    shapes = build_network("small/vgg", 10, (32, 48), settings=dict(width=8)).shapes()
    assert [shapes[f"stage{number}"] for number in (1, 2, 3, 4)] == [(8, 32, 48), (16, 16, 24), (32, 8, 12), (32, 4, 6)]


def test_its_size_is_that_of_eight_convolutions_and_a_head():
    # Convolutions 3 > 32 > 32 > 64 > 64 > 128 > 128 > 128 > 128 of 9 weights, scale and shift for each output, and a head.
    channels = [3, 32, 32, 64, 64, 128, 128, 128, 128]
    convolutions = sum(9 * a * b + 2 * b for a, b in pairwise(channels))
    assert build_network("small/vgg", 10, (32, 32)).n_parameters == convolutions + 128 * 10 + 10


def test_it_takes_odd_sizes():
    network = build_network("small/vgg", 3, (33, 47), settings=dict(width=4)).eval()
    assert network(torch.zeros(1, 3, 33, 47)).logits.shape == (1, 3)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UnknownNameError, match=r"small/vgg has no setting 'depth'. Its settings: input_size, width\."):
        build_network("small/vgg", 3, (32, 32), settings=dict(depth=3))
    with pytest.raises(SettingError, match="setting 'width' of small/vgg is at least 1, got 0"):
        build_network("small/vgg", 3, (32, 32), settings=dict(width=0))
    with pytest.raises(SettingError, match="takes sides from 8 pixels, got 4 x 32"):
        build_network("small/vgg", 3, (4, 32))
