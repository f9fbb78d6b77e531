import pytest
import torch
from torch import nn

from crossdistill.core.errors import UnknownNameError
from crossdistill.ops.taps import TAPS, block_stages, checked_taps, named_stages, recording, resolution_stages


@pytest.mark.parametrize("n_blocks", range(4, 49))
def test_four_different_blocks_are_read_and_the_last_one_is_among_them(n_blocks):
    blocks = block_stages(n_blocks)
    assert len(set(blocks)) == 4
    assert blocks == sorted(blocks)
    assert blocks[-1] == n_blocks - 1


def test_blocks_are_read_after_one_sixth_one_third_five_sixths_and_all():
    assert block_stages(24) == [4 - 1, 8 - 1, 20 - 1, 24 - 1]


def test_the_earliest_of_more_than_four_resolutions_are_dropped():
    assert resolution_stages([32 * 32, 16 * 16, 64, 16, 4, 1]) == [2, 3, 4, 5]


def test_the_last_output_of_each_resolution_is_taken():
    assert resolution_stages([64, 64, 16, 16, 16, 4, 1, 1]) == [1, 4, 5, 7]


def test_the_stem_fills_in_where_there_are_three_resolutions():
    assert resolution_stages([1024, 1024, 1024, 256, 64]) == [0, 2, 3, 4]


def test_the_deepest_is_stage4_where_there_are_fewer_than_four():
    assert named_stages([0]) == {"stage4": 0}


def test_an_unknown_tap_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownNameError, match="'stage5'. Did you mean 'stage"):
        checked_taps(["stage5"], TAPS)


def test_recording_keeps_inputs_and_outputs_and_leaves_no_hook_behind():
    layer = nn.Linear(2, 3)
    values = torch.rand(1, 2)
    with recording({"layer": layer}) as seen:
        output = layer(values)
    assert seen.inputs["layer"] is values
    assert seen.outputs["layer"] is output
    assert not layer._forward_hooks
