"""What bf16 does to a training step on this CPU: steps in float32 and in bf16 (autocast) alternate, of small ViTs and CNNs.

    python benchmarks/precision.py

One thread, batches of 64 images of 32 px, AdamW. The ratio is seconds in bf16 over seconds in float32: below 1 bf16 is faster.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from crossdistill.models._build import build_network
from crossdistill.ops.memory import keep_freed_memory
from crossdistill.train.precision import autocast
from protocol import paired_ratio, save_result

BATCH, SIDE, N_CLASSES = 64, 32, 10
CPU = torch.device("cpu")
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT, 4 blocks, 48 wide, patch 4": ("small/vit", {"patch": 4, "width": 48, "depth": 4, "heads": 3}),
    "ViT, 4 blocks, 96 wide, patch 8": ("small/vit", {"patch": 8, "width": 96, "depth": 4}),
    "small/vit (6 blocks, 128 wide, patch 4)": ("small/vit", {}),
    "small/resnet8": ("small/resnet8", {}),
    "small/resnet20": ("small/resnet20", {}),
}


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    save_result("precision", {name: paired_ratio(step(*of, "bf16"), step(*of, "fp32")) for name, of in NETWORKS.items()})


def step(model: str, settings: dict[str, Any], precision: str) -> Callable[[], object]:
    torch.manual_seed(0)
    network = build_network(model, n_classes=N_CLASSES, size=(SIDE, SIDE), settings=settings).train()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    images, labels = torch.rand(BATCH, 3, SIDE, SIDE), torch.randint(0, N_CLASSES, (BATCH,))

    def once() -> None:
        with autocast(precision, CPU):
            logits = network(images).logits
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return once


if __name__ == "__main__":
    main()
