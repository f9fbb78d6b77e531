"""Contracts that every registered probe keeps. A probe's own tests stand in tests/probes/."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from crossdistill.core import registry
from crossdistill.core.errors import CrossdistillError, ImageError
from crossdistill.core.seeds import key
from crossdistill.core.types import ImageSet
from crossdistill.probes._build import Supply, apply_probe, build_probe_set, open_probe_set, probe_recipe

HASHES = Path(__file__).parent / "probes" / "hashes"
N_CLASSES = 5
SIZES = [(32, 32), (64, 64), (224, 224), (48, 64), (33, 47)]

every_probe = pytest.mark.parametrize("name", registry.names("probe"))


def some_images(n=64, height=32, width=32):
    """Blocks of colour on a ramp, different for each image, made of integers only so that they are equal everywhere."""
    coarse = (np.random.Philox(key=5).random_raw(n * 3 * 16) >> np.uint64(57)).astype(np.int64).reshape(n, 3, 4, 4)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    ramp = np.arange(height)[:, None] * 64 // height + np.arange(width) * 64 // width
    images = (coarse[:, :, rows[:, None], columns] + ramp).astype(np.uint8)
    labels = np.arange(n) * 7 % N_CLASSES
    return ImageSet(images, labels, np.array([f"image {i}" for i in range(n)]), tuple("abcde"))


@cache
def drawn_images(n, side):
    """Images of the source trifeature, for probes that draw objects anew: equal on machines with equal arithmetic."""
    from crossdistill.images.trifeature import trifeature

    raw = trifeature(side=side, n_train=2, n_test=n)
    split = raw.read().splits["test"]
    pixels = np.concatenate([split.decode(rows) for rows in split.batches()])
    names = tuple(str(name) for name in raw.read().class_names)
    about = {"source": "trifeature", **raw.provenance}
    return ImageSet(pixels, split.labels, split.ids, names, about, split.factors)


def images_for(name, n, height=32, width=32):
    """The images above; drawn ones where the probe refuses others, and None where it refuses this size of them."""
    images = some_images(n, height, width)
    try:
        apply(name, images, np.arange(1), quick_levels(name, images)[-1])
    except ImageError:
        return drawn_images(n, height) if height == width else None
    return images


def discs(images):
    """Masks with soft edges, another disc for each image: uint8 [images, height, width], 5 to 85 % covered, of integers only."""
    height, width = images.size
    shade = images.images.astype(np.int64).sum(axis=(1, 2, 3))
    side = min(height, width)
    top, left = (shade // (7**power) % 5 - 2 for power in (0, 1))  # moved by up to two twentieths
    rows = np.arange(height)[None, :, None] * 20 - height * 10 - (top * side)[:, None, None]
    columns = np.arange(width)[None, None, :] * 20 - width * 10 - (left * side)[:, None, None]
    radius = (side * (5 + shade % 3))[:, None, None]  # 5 to 7 twentieths of the side
    inside = radius**2 - rows**2 - columns**2
    return np.clip(128 + inside // (side * 4), 0, 255).astype(np.uint8)


@cache
def pyramid():
    """A frozen random encoder of three stages."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stages = [torch.nn.Conv2d(n_in, n_out, 3, 2, 1).requires_grad_(False) for n_in, n_out in [(3, 4), (4, 6), (6, 8)]]

    def encode(images):
        maps = []
        for stage in stages:
            images = torch.relu(stage(images - 0.5))
            maps.append(images)
        return maps

    return encode


SUPPLIES = {
    "masks": Supply(discs, "discs", {"kind": "discs"}),
    "encoder": Supply(lambda images: pyramid(), "pyramid", {"name": "pyramid"}),
    "styles": Supply(lambda images: 255 - some_images(4, 64, 64).images, "four", {"name": "four"}),
}


def apply(name, images, index, level, draw=0):
    """Call a probe on the rows `index` of an image set, as the builder does."""
    seed = key(0, "probe", facts(name)["control_of"] or name, draw)
    return apply_probe(registry.get("probe", name), level, images, np.asarray(index), seed, SUPPLIES)


def call(name, images, seed, pixels=None):
    """Call a probe on its own, as a user does, at its default level; `pixels` in place of those of the image set."""
    everything, pixels = np.arange(len(images)), images.images if pixels is None else pixels
    offered = {"images": pixels, "labels": images.labels, "index": everything, "seed": seed, "image_set": images, "pool": images}
    offered |= {
        "masks": discs(images),
        "mask_of": discs,
        "encoder": pyramid(),
        "styles": SUPPLIES["styles"].of(images),
        "style_labels": None,
    }
    plugin = registry.get("probe", name)
    return plugin.function(*(offered[each] for each in plugin.inputs), **({} if is_exact(name) else {"steps": 1}))


def build(name, images, folder, **how):
    return build_probe_set(name, images, folder=folder, supplies=SUPPLIES, **how)


def facts(name):
    return registry.get("probe", name).facts


def takes(name, wanted):
    return wanted in registry.get("probe", name).inputs


def is_exact(name):
    """Whether bytes are promised to be equal everywhere: not where they come from an encoder."""
    return facts(name)["block"] is None


def quick_levels(name, images):
    return probe_recipe(name, images.size).levels


def full_set(name, folder):
    """The full preset of the images whose hashes are committed; a level that needs a package that is missing is left out."""
    images = images_for(name, 64 if is_exact(name) else 8)
    return build(name, images, folder, levels=possible(name, facts(name)["full"], images), draws=1)


def possible(name, levels, images):
    """The levels whose packages are installed. Those that are not say so in one sentence, with the extra to install."""
    kept, refusals = [], []
    for level in levels if isinstance(levels, list) else levels(images.size):
        try:
            registry.get("probe", name).parse(level)
        except CrossdistillError as error:
            refusals.append(str(error))
        else:
            kept.append(level)
    assert all("pip install 'crossdistill[" in refusal for refusal in refusals), refusals
    return kept


@every_probe
def test_the_null_level_returns_the_clean_bytes(name):
    images = images_for(name, 8)
    null = facts(name)["null"]
    if null is None:
        text = " ".join((registry.get("probe", name).function.__doc__ or "").split())
        assert "No level gives the clean images" in text, "a probe without a null level says so in its docstring"
        return
    made = apply(name, images, np.arange(8), null)
    assert np.array_equal(made.images, images.images[made.kept_index])


@every_probe
def test_images_that_are_not_bytes_in_three_channels_are_refused(name):
    images = images_for(name, 8)
    for wrong in (images.images.astype(np.float32), images.images[:, :1], images.images[0]):
        with pytest.raises(ValueError, match=r"images must be uint8 \[images, 3, height, width\], got (uint8|float32)"):
            call(name, images, 0, pixels=wrong)


@every_probe
def test_any_integer_is_a_seed(name):
    if takes(name, "seed"):
        images = images_for(name, 8)
        assert np.array_equal(call(name, images, np.uint64(2**63 + 5)).images, call(name, images, 2**63 + 5).images)


@every_probe
def test_no_level_writes_into_the_clean_images(name):
    images = images_for(name, 8)
    before = images.images.copy()
    images.images.setflags(write=False)
    for level in [*quick_levels(name, images), *([facts(name)["null"]] if facts(name)["null"] else [])]:
        assert not np.shares_memory(apply(name, images, np.arange(8), level).images, images.images)
    assert np.array_equal(images.images, before)


@every_probe
def test_bytes_do_not_depend_on_order_or_subset(name):
    everything = np.arange(16 if is_exact(name) else 6)
    images = images_for(name, len(everything))
    for level in quick_levels(name, images):
        whole = apply(name, images, everything, level)
        row_of = dict(zip(everything[whole.kept_index], whole.images, strict=True))
        for index in (everything[::-1], everything[3::4], everything[5:6]):
            made = apply(name, images, index, level)
            kept = index[made.kept_index]
            assert kept.tolist() == [row for row in index if row in row_of]
            difference = np.abs(made.images.astype(int) - np.array([row_of[row] for row in kept]).astype(int))
            # Where an encoder is asked, sums over a batch of another size may round otherwise: few bytes, and little.
            assert difference.max(initial=0) == 0 if is_exact(name) else np.mean(difference, dtype=float) < 0.5


@every_probe
def test_another_index_or_draw_gives_other_bytes(name):
    everything = np.arange(40 if is_exact(name) else 8)
    images = images_for(name, len(everything))
    for level in quick_levels(name, images):
        made = apply(name, images, everything, level)
        again = apply(name, images, everything, level, draw=1)
        if not takes(name, "seed"):
            assert np.array_equal(made.images, again.images), "a probe that takes no seed has nothing to draw"
            continue
        assert (made.images != again.images).any(axis=(1, 2, 3)).mean() > 0.5
    if takes(name, "seed") and is_exact(name) and not takes(name, "pool") and not takes(name, "image_set"):
        assert number_of_different_copies(name, quick_levels(name, images)[0]) >= 10


def number_of_different_copies(name, level):
    """Of 40 equal images with other indices. Scrambled on a 2 x 2 grid into 23 orders, fewer than 10 do not happen (below 1e-9)."""
    image = some_images(1).images
    copies = ImageSet(np.repeat(image, 40, axis=0), np.zeros(40, np.int64), np.arange(40).astype(str), ("a",))
    return len(np.unique(apply(name, copies, np.arange(40), level).images.reshape(40, -1), axis=0))


@every_probe
def test_an_oracle_that_knows_each_image_answers_right_everywhere(name, tmp_path):
    images = images_for(name, 64 if is_exact(name) else 8)
    draws = 2 if takes(name, "seed") else 1
    built = build(name, images, tmp_path, draws=draws)
    for draw in range(draws):
        for number, level in enumerate(built.levels):
            alone = range(0, len(images), 4) if is_exact(name) else []
            oracle = {int(i): made for i in alone for made in apply(name, images, [i], level, draw).images}
            read = built.images(number, draw)
            row_of = {int(i): row for row, i in enumerate(built.kept_index)}
            assert oracle.keys() == {i for i in row_of if i in alone}
            assert all(np.array_equal(read.images[row_of[i]], image) for i, image in oracle.items())
            assert np.array_equal(read.labels, images.labels[built.kept_index])
            assert np.array_equal(read.ids, images.ids[built.kept_index])


@every_probe
def test_permuted_labels_are_refused(name, tmp_path):
    built = build(name, images_for(name, 8), tmp_path)
    labels = np.load(built.folder / "labels.npy")
    np.save(built.folder / "labels.npy", np.roll(labels, 1))
    with pytest.raises(ImageError, match=r"labels\.npy is not what was built"):
        open_probe_set(built.folder)


@every_probe
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_usual_size_works(name, height, width):
    images = images_for(name, 4, height, width)
    if images is None:
        pytest.skip("the only images that this probe takes are square")
    # Large images are slow: there only what a study shows by default, and the strongest level of all.
    full = possible(name, facts(name)["full"], images)
    slow = height * width > 100**2 or not is_exact(name)
    for level in [*quick_levels(name, images), *(full[-1:] if slow else full)]:
        made = apply(name, images, np.arange(4), level)
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
    assert takes(name, "seed") or plugin.facts["draws"]["full"] == 1, "a probe that takes no seed has one draw"
    assert not (plugin.facts["core"] and {"masks", "encoder", "styles", "mask_of"} & set(plugin.inputs)), "core probes need nothing else"
    if plugin.facts["control_of"]:
        assert plugin.facts["control_of"] in registry.names("probe")
        assert not plugin.facts["core"]
    for size in [(32, 32), (224, 224)]:
        assert 1 <= len(probe_recipe(name, size).levels) <= 3
        full = plugin.facts["full"]
        assert len(full if isinstance(full, list) else full(size)) >= 2


@every_probe
def test_bytes_are_those_committed(name, tmp_path):
    built = full_set(name, tmp_path / "first")
    found = {level["name"]: level["sha256"] for level in built.manifest["levels"]}
    file = HASHES / f"{name}.json"
    expected = json.loads(file.read_text()) if file.exists() else {}
    assert bool(expected) == is_exact(name), f"bytes from an encoder are promised on no other machine, all others are: write {file}"
    promised = {level: sha256 for level, sha256 in found.items() if level in expected}
    assert promised == {level: expected[level] for level in promised}, (
        f"If the change is meant, raise the probe's version and write {file}:\n{json.dumps(found, indent=1)}\n"
        f"Made with {built.manifest['software']}."
    )
    if promised.keys() < found.keys():  # levels that hang on another library, such as a JPEG encoder, are promised on this machine only
        again = full_set(name, tmp_path / "second")
        assert {level["name"]: level["sha256"] for level in again.manifest["levels"]} == found


def test_bytes_do_not_depend_on_the_vector_units_of_the_cpu(tmp_path):
    # NumPy computes powers and roots with other last bits where it has AVX2 or AVX-512: no byte of a probe may hang on them.
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    if not found:
        pytest.skip("this NumPy has no vector code to switch off here")
    script = (
        "import runpy, sys, pathlib\n"
        "tests = runpy.run_path(sys.argv[1])\n"
        "for name in tests['registry'].names('probe'):\n"
        "    if tests['is_exact'](name):\n"
        "        tests['test_bytes_are_those_committed'](name, pathlib.Path(sys.argv[2]))\n"
    )
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(found), "OPENBLAS_CORETYPE": "Nehalem"}
    ran = subprocess.run([sys.executable, "-c", script, __file__, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
