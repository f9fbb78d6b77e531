"""Losses of several tensors in a user's own loop under autocast: no bit of them changes. (The others: test_features.py.)"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from crossdistill import functional

Calls = dict[str, Callable[[Callable[..., Tensor]], dict[str, Tensor]]]
LABELS = torch.tensor([0, 2, 1])
CALLS: Calls = {
    "sskd": lambda r: functional.sskd(r(12, 5), r(12, 5), r(12, 6), r(12, 7), LABELS),
    "c2vkd": lambda r: functional.c2vkd(r(3, 6, 4, 4), r(3, 6, 4, 4), pool_weight=r(5, 6)),
    "vlfkd_seed": lambda r: functional.vlfkd_seed(
        r(3, 6, 4, 4), r(3, 8, 2, 2), r(3, 5), r(3, 5), LABELS, global_projection=r(6, 8), patch_projection=r(6, 8),
        teacher_align=(r(4, 8), r(4)), student_align=(r(4, 6), r(4)),
    ),
    "capd_attention": lambda r: {"loss": functional.capd_attention(*(r(2, 2, 9, 4) for _ in range(6)))},
    "capd_value": lambda r: {"loss": functional.capd_value(r(2, 2, 9, 4), r(2, 2, 9, 4))},
    "capd_release": lambda r: functional.capd_release(
        r(2, 8, 4, 4), r(2, 5), r(2, 5), r(2, 6), r(2, 6), r(2, 16, 6), r(2, 2, 17, 3), r(2, 2, 17, 3), r(2, 2, 17, 3),
        heads=2, qkv_weight=r(24, 8), group_weight=r(1, 6, 8), group_bias=r(1, 6),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_autocast_around_a_loss_changes_no_bit_of_it(name: str) -> None:
    def values() -> dict[str, Tensor]:
        random = torch.Generator().manual_seed(0)
        return CALLS[name](lambda *shape: torch.randn(*shape, generator=random))

    plain = values()
    with torch.autocast("cpu", torch.bfloat16):
        cast = values()
    assert plain
    assert all(torch.equal(plain[term], cast[term]) for term in plain)
