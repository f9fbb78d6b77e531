import multiprocessing
import resource
import time

import numpy as np
import pytest

from crossdistill.core.errors import ImageError, StudyError
from crossdistill.images import _cache
from crossdistill.images._cache import decoded
from crossdistill.images._raw import RawContents, RawImages, RawSplit, array_split, ranges
from crossdistill.images._splits import load_splits


def grey_levels(n_images: int, read_log: list | None = None) -> RawImages:
    """A source in memory: image i is filled with i."""

    def read() -> RawContents:
        if read_log is not None:
            read_log.append("read")
        pixels = np.arange(n_images, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(6, 2)
        return RawContents(("a",), {"train": array_split(pixels, np.zeros(n_images), "train")})

    return RawImages({"n": n_images}, read, {"origin": "memory"})


def test_decodes_once_and_maps_from_then_on():
    log = []
    first, second = (decoded("levels", 1, grey_levels(5, log))["train"] for _ in range(2))
    assert log == ["read"]
    assert isinstance(second.images, np.memmap)
    assert not second.images.flags.writeable
    assert np.array_equal(first.images, second.images)
    assert second.images.shape == (5, 3, 4, 6)
    assert second.provenance["origin"] == "memory"


def test_another_version_fingerprint_or_source_is_another_entry(cache):
    decoded("levels", 1, grey_levels(5))
    decoded("levels", 2, grey_levels(5))
    decoded("levels", 1, grey_levels(6))
    decoded("other", 1, grey_levels(5))
    assert len(list((cache / "images").iterdir())) == 4


def test_progress_reaches_the_total():
    told = []
    decoded("levels", 1, grey_levels(255), lambda *step: told.append(step))
    assert told == [("decoding train", 255, 255)]


def test_the_order_survives_many_batches_in_threads():
    def read() -> RawContents:
        def decode(rows: slice) -> np.ndarray:
            time.sleep(0.002 * (rows.start % 3))  # later batches finish first
            return np.arange(rows.start, rows.stop, dtype=np.uint8)[:, None, None, None].repeat(3, 1)

        split = RawSplit(np.zeros(100, np.int64), np.arange(100).astype(str), lambda: ranges(100, 1), decode)
        return RawContents(("a",), {"train": split})

    images = decoded("slow", 1, RawImages("slow", read))["train"].images
    assert images[:, 0, 0, 0].tolist() == list(range(100))


def test_an_unfinished_folder_is_filled_again(cache):
    decoded("levels", 1, grey_levels(5))
    (entry,) = (cache / "images").iterdir()
    (entry / "meta.json").unlink()
    (entry / "train-images.npy").write_bytes(b"half")
    assert len(decoded("levels", 1, grey_levels(5))["train"]) == 5


@pytest.mark.parametrize("file", ["train-images.npy", "train-labels.npy", "meta.json"])
def test_a_damaged_entry_says_which_folder_to_delete(cache, file):
    decoded("levels", 1, grey_levels(5))
    (entry,) = (cache / "images").iterdir()
    (entry / file).write_bytes((entry / file).read_bytes()[:100])
    with pytest.raises(ImageError, match=f"{entry.name} are damaged"):
        decoded("levels", 1, grey_levels(5))


def test_a_cache_that_cannot_be_written_says_what_to_set(cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(StudyError, match="set CROSSDISTILL_CACHE to a folder that can be written"):
        decoded("levels", 1, grey_levels(5))


def test_a_full_disk_is_one_message_and_leaves_nothing_that_looks_whole(cache):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))  # 200 images of 72 bytes do not fit
        with pytest.raises(StudyError, match=r"cannot keep decoded images in .*File too large"):
            decoded("levels", 1, grey_levels(200))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [*cache.rglob("meta.json"), *cache.rglob("*.npy")]
    assert len(decoded("levels", 1, grey_levels(200))["train"]) == 200


def _load_in_a_process(results):
    splits = load_splits("trifeature", {"n_train": 300, "n_test": 20, "n_conflict": 20})
    results.put(int(splits.train.images.astype(np.int64).sum()))


def test_processes_that_start_together_read_the_same_images(cache):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_load_in_a_process, args=(results,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    sums = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(sums) == 1
    assert len(list(cache.rglob("meta.json"))) == 1


def test_a_subset_too_large_for_memory_is_mapped_too(monkeypatch):
    images = decoded("levels", 1, grey_levels(9))["train"]
    rows = np.array([1, 4, 8])
    monkeypatch.setattr(_cache, "LARGEST_COPY", 100)
    mapped = _cache.taken(images, rows)
    assert isinstance(mapped.images, np.memmap)
    assert mapped.images[:, 0, 0, 0].tolist() == [1, 4, 8]
    assert mapped.ids.tolist() == ["train-1", "train-4", "train-8"]
    assert isinstance(_cache.taken(images, rows).images, np.memmap)


def test_all_rows_are_the_mapped_images_themselves():
    images = decoded("levels", 1, grey_levels(4))["train"]
    assert _cache.taken(images, np.arange(4)) is images
