"""Small networks as a user writes them, images that they learn in a second, and a cache of the tests' own."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

SIDE, N = 16, 240
TINY: dict[str, Any] = {
    "epochs": 1,
    "probes": ["scramble"],
    "training": {"batch_size": 16, "threads": 1, "precision": "fp32", "learning_rate": 5e-3, "warmup_epochs": 0},
    "observe": {"instruments": []},
    "signal_gate": "off",
    "quiet": True,
}


class ConvNet(nn.Module):
    """A plain network, with nothing that this project knows of."""

    def __init__(self, width: int = 6, n_classes: int = 2) -> None:
        super().__init__()
        channels = [3, width, 2 * width, 3 * width, 4 * width]
        layers = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in pairwise(channels)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels[-1], n_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(images).mean((2, 3)))


class PatchNet(nn.Module):
    """A small ViT as one writes it by hand: patches, a class token, encoder layers of torch."""

    def __init__(self, width: int = 16, n_classes: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 1 + (SIDE // 4) ** 2, width) * 0.02)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(width, 2, 32, 0.0, batch_first=True) for _ in range(3))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = self.patches(images).flatten(2).transpose(1, 2)
        rows = torch.cat([self.token.expand(len(rows), -1, -1), rows], 1) + self.places
        for block in self.blocks:
            rows = block(rows)
        return self.head(self.norm(rows)[:, 0])


@pytest.fixture(scope="session")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """(images, labels): reddish and bluish noise."""
    random = np.random.default_rng(0)
    labels = np.arange(N) % 2
    tint = (2 * labels - 1)[:, None, None, None] * np.array([40, 0, -40])[:, None, None]
    return np.clip(128 + tint + random.normal(0, 40, (N, 3, SIDE, SIDE)), 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="session")
def few(pair: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Half of them, for tests of what does not depend on their number."""
    return pair[0][: N // 2], pair[1][: N // 2]


@pytest.fixture(scope="session")
def teacher(pair: tuple[np.ndarray, np.ndarray]) -> nn.Module:
    """A ConvNet that tells the two apart, left in train mode with gradients, as it is after one's own training."""
    images, labels = torch.tensor(pair[0]) / 255, torch.tensor(pair[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ConvNet()
        optimizer = torch.optim.Adam(network.parameters(), 0.02)
        for _ in range(30):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
    return network


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSDISTILL_CACHE", str(tmp_path_factory.getbasetemp() / "notebook-cache"))
        yield


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies without their page, which takes seconds: for tests of what stands before it."""
    monkeypatch.setattr("crossdistill.study.execute.build_page", lambda folder: folder / "report.html")


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """What makes a distillation take seconds."""
    return TINY


@pytest.fixture(scope="session")
def conv_net() -> type[nn.Module]:
    return ConvNet


@pytest.fixture(scope="session")
def patch_net() -> type[nn.Module]:
    return PatchNet


@pytest.fixture(scope="session")
def bits() -> Callable[[nn.Module], dict[str, bytes]]:
    """The bytes of every parameter and buffer."""
    return lambda network: {name: value.detach().numpy().tobytes() for name, value in network.state_dict().items()}
