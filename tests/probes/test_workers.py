"""Probes built by worker processes: the same bytes from any number of them, errors that arrive, and a probe that cannot be sent."""

import os

import numpy as np
import pytest

from crossdistill.core import registry
from crossdistill.core.errors import SettingError, StudyError
from crossdistill.core.registry import as_plugin, probe
from crossdistill.core.types import ImageSet, ProbeImages
from crossdistill.core.workers import Workers
from crossdistill.probes import _treatment
from crossdistill.probes._build import Supply, build_probe_set


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(_treatment, "BLOCK_BYTES", 3 * 3 * 32 * 32)  # three images of 32 px


@pytest.mark.parametrize("name", ["localized_noise", "superpixel"])
def test_bytes_do_not_depend_on_the_number_of_workers(make_images, tmp_path, small_blocks, name):
    hashes = [
        build_probe_set(name, make_images(11), draws=2 - (name == "superpixel"), folder=tmp_path / str(n), workers=n).manifest["sha256"]
        for n in (1, 3)
    ]
    assert hashes[0] == hashes[1]
    assert [path.name[:4] for path in (tmp_path / "3" / os.listdir(tmp_path / "3")[0]).glob("clean-*")] == []


def test_mapped_images_are_read_from_their_own_file(make_images, tmp_path, small_blocks, monkeypatch):
    clean = make_images(11)
    np.save(tmp_path / "pixels.npy", clean.images)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    assert _treatment._file_of(mapped, tmp_path) == tmp_path / "pixels.npy"
    for view in (mapped[:5], mapped[::-1], mapped[:, :, ::-1], clean.images):
        written = _treatment._file_of(view, tmp_path)
        assert written == tmp_path / "clean-images.npy"
        assert np.array_equal(np.load(written), view)
        written.unlink()
    changed = np.load(tmp_path / "pixels.npy", mmap_mode="c")
    changed[0] ^= 255  # in memory only
    assert np.array_equal(np.load(_treatment._file_of(changed, tmp_path)), changed)
    images = ImageSet(mapped, clean.labels, clean.ids, clean.class_names)
    first = build_probe_set("scramble", images, folder=tmp_path / "mapped", workers=2)
    second = build_probe_set("scramble", clean, folder=tmp_path / "memory", workers=2)
    assert first.manifest["sha256"] == second.manifest["sha256"]


def test_workers_start_by_themselves_where_much_is_left_to_do(make_images, tmp_path, small_blocks, monkeypatch):
    monkeypatch.setattr(_treatment, "WORTH_WORKERS", 0.0)
    monkeypatch.setattr(_treatment, "_cores", lambda: 2)
    started = []
    monkeypatch.setattr(_treatment, "Workers", lambda n, *rest: started.append(n) or Workers(n, *rest))
    build_probe_set("scramble", make_images(11), folder=tmp_path)
    assert started == [2]


def test_a_probe_that_no_other_process_can_import_is_applied_here(make_images, tmp_path, small_blocks, monkeypatch):
    @probe(isolates="nothing", quick=[{"shade": 1}], full=[{"shade": 1}], draws={"quick": 1, "full": 1}, null=None)
    def darken(images, labels, *, shade: int = 1):
        return ProbeImages(images >> shade, np.arange(len(images)), labels)

    monkeypatch.setattr(registry, "get", lambda kind, name: as_plugin(name, darken))
    built = build_probe_set("darken", make_images(11), folder=tmp_path, workers=2)
    assert np.array_equal(built.images(0, 0).images, make_images(11).images >> 1)


def test_an_error_in_a_worker_arrives_with_its_traceback(make_images, tmp_path, small_blocks):
    with pytest.raises(SettingError, match="grid must be 1 to 32") as caught:
        build_probe_set("scramble", make_images(11), levels=[{"grid": 33}], folder=tmp_path, workers=2)
    assert "Traceback" in "".join(caught.value.__notes__)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_ends_is_told_and_what_is_done_is_kept(make_images, tmp_path, small_blocks, monkeypatch):
    def killed(*arguments):
        workers = Workers(*arguments)
        workers._processes[-1].kill()  # the one that is asked first
        return workers

    with monkeypatch.context() as patch:
        patch.setattr(_treatment, "Workers", killed)
        with pytest.raises(StudyError, match="same command goes on"):
            build_probe_set("scramble", make_images(11), folder=tmp_path, workers=2)
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    build_probe_set("scramble", make_images(11), folder=tmp_path)


def test_masks_are_made_once_and_read_by_workers(make_images, tmp_path, small_blocks, monkeypatch):
    @probe(isolates="nothing", quick=[{"level": 1}, {"level": 2}], full=[{"level": 1}], draws={"quick": 1, "full": 1}, null=None)
    def cut_out(images, labels, masks, pool, mask_of, *, level: int = 1):
        assert np.array_equal(mask_of(pool.subset(np.array([4, 2])))[:, 0, 0], [4, 2])
        return ProbeImages(np.repeat(masks[:, None], 3, axis=1) * level, np.arange(len(images)), labels)

    asked = []

    def of(images):
        asked.extend(images.ids)
        return np.broadcast_to(np.array([int(name[:3]) for name in images.ids], np.uint8)[:, None, None], (len(images), 32, 32)).copy()

    monkeypatch.setattr(registry, "get", lambda kind, name: as_plugin(name, cut_out))
    supplies = {"masks": Supply(of, "numbers", {"kind": "numbers"})}
    built = build_probe_set("cut_out", make_images(11), folder=tmp_path, supplies=supplies)
    assert asked == make_images(11).ids.tolist()
    assert built.images(1, 0).images[:, 0, 0, 0].tolist() == list(range(0, 22, 2))
    assert built.manifest["supplies"] == {"masks": {"kind": "numbers", "identity": "numbers"}}
    assert not list(built.folder.glob("supplied*"))
