"""Contracts that every registered probe keeps. A probe's own tests stand in tests/probes/."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crossdistill.core import registry
from crossdistill.core.errors import ImageError
from crossdistill.core.seeds import key
from crossdistill.core.types import ImageSet
from crossdistill.probes._build import build_probe_set, open_probe_set, probe_recipe

HASHES = Path(__file__).parent / "probes" / "hashes"
N_CLASSES = 5

every_probe = pytest.mark.parametrize("name", registry.names("probe"))


def some_images(n=64, height=32, width=32):
    """Blocks of colour on a ramp, different for each image, made of integers only so that they are equal everywhere."""
    coarse = (np.random.Philox(key=5).random_raw(n * 3 * 16) >> np.uint64(57)).astype(np.int64).reshape(n, 3, 4, 4)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    ramp = np.arange(height)[:, None] * 64 // height + np.arange(width) * 64 // width
    images = (coarse[:, :, rows[:, None], columns] + ramp).astype(np.uint8)
    labels = np.arange(n) * 7 % N_CLASSES
    return ImageSet(images, labels, np.array([f"image {i}" for i in range(n)]), tuple("abcde"))


def inputs_of(plugin):
    parameters = inspect.signature(plugin.function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]


def probe(name, images, index, level, draw=0):
    """Call a probe on the rows `index` of an image set, as the builder does."""
    plugin = registry.get("probe", name)
    rows = images.subset(index)
    supplies = {"images": rows.images, "labels": rows.labels, "index": index, "seed": key(0, "probe", name, draw)}
    return plugin.function(*(supplies[wanted] for wanted in inputs_of(plugin)), **level)


def quick_levels(name, images):
    return probe_recipe(name, images.size).levels


def full_set(name, folder):
    return build_probe_set(name, some_images(), preset="full", draws=1, folder=folder)


@every_probe
def test_the_null_level_returns_the_clean_bytes(name):
    images = some_images(8)
    null = registry.get("probe", name).facts["null"]
    assert null is not None
    made = probe(name, images, np.arange(8), null)
    assert np.array_equal(made.images, images.images[made.kept_index])


@every_probe
def test_no_level_writes_into_the_clean_images(name):
    images = some_images(8)
    images.images.setflags(write=False)
    for level in [registry.get("probe", name).facts["null"], *quick_levels(name, images)]:
        assert not np.shares_memory(probe(name, images, np.arange(8), level).images, images.images)


@every_probe
def test_bytes_do_not_depend_on_order_or_subset(name):
    images = some_images(16)
    everything = np.arange(16)
    for level in quick_levels(name, images):
        whole = probe(name, images, everything, level).images
        assert np.array_equal(probe(name, images, everything[::-1], level).images, whole[::-1])
        assert np.array_equal(probe(name, images, everything[3::4], level).images, whole[3::4])
        assert np.array_equal(probe(name, images, everything[5:6], level).images, whole[5:6])


@every_probe
def test_another_index_or_draw_gives_other_bytes(name):
    wanted = inputs_of(registry.get("probe", name))
    images = some_images(1)
    copies = ImageSet(np.repeat(images.images, 40, axis=0), np.zeros(40, np.int64), np.arange(40).astype(str), ("a",))
    for level in quick_levels(name, images):
        made = probe(name, copies, np.arange(40), level).images
        n_different = len(np.unique(made.reshape(40, -1), axis=0))
        if "index" not in wanted:
            assert n_different == 1, "a probe that takes no index treats equal images alike"
            continue
        # Of 40 images scrambled on a 2 x 2 grid into 23 orders, fewer than 10 different ones do not happen (below 1e-9).
        assert n_different >= 10
        again = probe(name, copies, np.arange(40), level, draw=1).images
        assert (made != again).any(axis=(1, 2, 3)).mean() > 0.8


@every_probe
def test_an_oracle_that_knows_each_image_answers_right_everywhere(name, tmp_path):
    images = some_images()
    built = build_probe_set(name, images, draws=2, folder=tmp_path)
    for draw in range(2):
        for number, level in enumerate(built.levels):
            oracle = {}
            for i in range(len(images)):
                for image in probe(name, images, np.array([i]), level, draw).images:
                    oracle[image.tobytes()] = int(images.labels[i])
            read = built.images(number, draw)
            answers = np.array([oracle[image.tobytes()] for image in read.images])
            assert np.array_equal(answers, read.labels)
            assert np.array_equal(read.ids, images.ids[built.kept_index])


@every_probe
def test_permuted_labels_are_refused(name, tmp_path):
    built = build_probe_set(name, some_images(), folder=tmp_path)
    labels = np.load(built.folder / "labels.npy")
    np.save(built.folder / "labels.npy", np.roll(labels, 1))
    with pytest.raises(ImageError, match=r"labels\.npy is not what was built"):
        open_probe_set(built.folder)


@every_probe
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (224, 224), (48, 64), (33, 47)])
def test_every_usual_size_works(name, height, width):
    images = some_images(2, height, width)
    for preset in ("quick", "full"):
        for level in probe_recipe(name, images.size, preset=preset).levels:
            made = probe(name, images, np.arange(2), level)
            assert made.images.dtype == np.uint8
            assert made.images.shape[:2] == (len(made.kept_index), 3)
            assert np.array_equal(made.labels, images.labels[made.kept_index])
            # Never less than what a centre crop to a multiple of a grid of 8 leaves.
            assert made.images.shape[2] > height - 8
            assert made.images.shape[3] > width - 8


@every_probe
def test_presets_are_what_the_plan_counts_on(name):
    plugin = registry.get("probe", name)
    assert plugin.facts["isolates"].strip()
    assert plugin.facts["draws"]["quick"] == 1
    for size in [(32, 32), (224, 224)]:
        assert 2 <= len(probe_recipe(name, size).levels) <= 3
        assert len(probe_recipe(name, size, preset="full").levels) >= 3


@every_probe
def test_bytes_are_those_committed(name, tmp_path):
    built = full_set(name, tmp_path)
    found = {level["name"]: level["sha256"] for level in built.manifest["levels"]}
    file = HASHES / f"{name}.json"
    expected = json.loads(file.read_text()) if file.exists() else None
    assert found == expected, (
        f"If the change is meant, raise the probe's version and write {file}:\n{json.dumps(found, indent=1)}\n"
        f"Made with {built.manifest['software']}."
    )


def test_bytes_do_not_depend_on_the_vector_units_of_the_cpu(tmp_path):
    # NumPy computes powers and roots with other last bits where it has AVX2 or AVX-512: no byte of a probe may hang on them.
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    if not found:
        pytest.skip("this NumPy has no vector code to switch off here")
    script = (
        "import runpy, sys, pathlib\n"
        "tests = runpy.run_path(sys.argv[1])\n"
        "for name in tests['registry'].names('probe'):\n"
        "    tests['test_bytes_are_those_committed'](name, pathlib.Path(sys.argv[2]))\n"
    )
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(found), "OPENBLAS_CORETYPE": "Nehalem"}
    ran = subprocess.run([sys.executable, "-c", script, __file__, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
