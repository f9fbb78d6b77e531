"""Small image files of every kind, and a cache of their own for each test."""

import io
import json
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("CROSSDISTILL_CACHE", str(folder))
    return folder


@pytest.fixture
def png():
    """A function that returns the bytes of a PNG filled with one level of grey."""

    def png(level: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
        file = io.BytesIO()
        pixels = np.full((*size, 3), level, np.uint8)
        image = Image.fromarray(pixels)
        image = image.quantize() if mode == "P" else image.convert(mode)  # convert("P") would round to a fixed palette
        image.save(file, "png")
        return file.getvalue()

    return png


@pytest.fixture
def photos(tmp_path, png):
    """A function that fills a folder: {"train/cat": 10} puts ten PNG files there, each of its own grey level."""

    def photos(counts: dict[str, int], name: str = "photos") -> Path:
        root, level = tmp_path / name, 0
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True)
            for row in range(count):
                (root / folder / f"{row:03}.png").write_bytes(png(level := (level + 1) % 256))
        return root

    return photos


@pytest.fixture
def parquet_file():
    """A function that writes a Parquet file: `columns` is SQL over image (bytes) and label, `names` goes into the metadata."""

    def write(path: Path, images: list[bytes | None], labels: list, columns="{'bytes': image, 'path': NULL} AS image, label", names=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "VARCHAR" if any(isinstance(label, str) for label in labels) else "BIGINT"
        connection = duckdb.connect()
        connection.execute(f"CREATE TABLE rows (image BLOB, label {kind})")
        connection.executemany("INSERT INTO rows VALUES (?, ?)", list(zip(images, labels, strict=True)))
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        text = json.dumps({"info": {"features": features}})
        metadata = f", KV_METADATA {{huggingface: '{text}'}}" if names else ""
        connection.execute(f"COPY (SELECT {columns} FROM rows) TO '{path}' (FORMAT parquet{metadata})")
        return path

    return write
