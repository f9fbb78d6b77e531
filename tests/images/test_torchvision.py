"""cifar10, cifar100 and fashion_mnist, from small files in the layouts that torchvision reads."""

import pickle
import struct

import numpy as np
import pytest

from crossdistill.core.errors import ImageError
from crossdistill.images._splits import load_splits


@pytest.fixture
def offline(monkeypatch):
    import urllib.request
    from urllib.error import URLError

    def refuse(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist"])
def test_offline_says_what_is_missing_where_it_looked_and_what_works(name, tmp_path, offline):
    with pytest.raises(ImageError) as refusal:
        load_splits(name, {"path": tmp_path})
    assert f"is not in {tmp_path} and cannot be fetched" in str(refusal.value)
    assert "parquet:DIR or folder:DIR work offline" in str(refusal.value)


def test_fashion_mnist_becomes_rgb_with_its_names(tmp_path, offline):
    raw = tmp_path / "FashionMNIST/raw"
    raw.mkdir(parents=True)
    for part, n_images in (("train", 40), ("t10k", 10)):
        pixels = np.arange(n_images, dtype=np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
        labels = np.arange(n_images, dtype=np.uint8) % 10
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, n_images, 28, 28) + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, n_images) + labels.tobytes())
    test = load_splits("fashion_mnist", {"path": tmp_path}).test
    assert test.images.shape == (10, 3, 28, 28)
    assert (test.images[7] == 7).all()
    assert test.class_names[9] == "Ankle boot"


def test_cifar10_is_read_channel_by_channel(tmp_path, offline, monkeypatch):
    import torchvision

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.repeat(np.array([[10, 20, 30]], np.uint8), 1024, axis=1).repeat(10, axis=0)  # red, then green, then blue planes
    for name in ("test_batch", *(f"data_batch_{part}" for part in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": list(range(10))}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {k}" for k in range(10)]}))
    splits = load_splits("cifar10", {"path": tmp_path})
    assert splits.test.labels.tolist() == list(range(10))
    assert splits.test.images[3, :, 5, 5].tolist() == [10, 20, 30]
    assert len(splits.train) + len(splits.validation) == 50
