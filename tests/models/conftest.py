"""A hub that is a folder: what the libraries find in their caches, with the network switched off."""

from pathlib import Path

import pytest


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """The cache folder of the Hugging Face hub, empty and offline; torch's cache is the folder `torch` beside it."""
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return folder


@pytest.fixture
def publish(hub):
    """publish(repository, files): put files into the hub's cache as a download would have left them."""

    def put(repository: str, files: dict[str, bytes]) -> None:
        folder = hub / f"models--{repository.replace('/', '--')}"
        commit = "0" * 40
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(commit)
        snapshot = folder / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for name, content in files.items():
            (snapshot / name).write_bytes(content)

    return put
