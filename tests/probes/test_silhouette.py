import numpy as np
import pytest

from crossdistill.compare import ObservedRun, results_table
from crossdistill.core.errors import ImageError
from crossdistill.core.records import RunRecord
from crossdistill.core.types import Observations
from crossdistill.images._splits import load_splits
from crossdistill.images.trifeature import object_coverage
from crossdistill.probes._build import Supply, build_probe_set
from crossdistill.probes._masks import mask_supply
from crossdistill.probes.silhouette import silhouette


def discs(images):
    """A disc in each image, wider in the brighter ones, anti-aliased over one pixel."""
    height, width = images.size
    rows, columns = np.arange(height)[:, None] - height / 2 + 0.5, np.arange(width) - width / 2 + 0.5
    radius = 4 + images.images.mean(axis=(1, 2, 3))[:, None, None] / 32
    return (np.clip(radius - np.hypot(rows, columns) + 0.5, 0, 1) * 255).round().astype(np.uint8)


def masked(of, name="discs"):
    return {"masks": Supply(of, name, {"kind": name})}


def made(images, **level):
    masks = discs(images)
    return masks, silhouette(images.images, images.labels, masks, **level)


def test_the_three_polarities_are_the_mask_in_other_greys(make_images):
    images = make_images(4, 33, 47)
    masks, dark = made(images, polarity="dark")
    assert np.array_equal(dark.images, np.repeat(255 - masks[:, None], 3, axis=1))
    assert np.array_equal(made(images, polarity="light")[1].images, 255 - dark.images)
    grey = made(images, polarity="grey")[1].images.astype(int)
    assert np.abs(grey[:, 0] - (255 - masks * (127 / 255))).max() <= 0.5
    assert (grey[:, 0][masks == 255] == 128).all()
    assert (grey[:, 0][masks == 0] == 255).all()


def test_edges_are_anti_aliased(make_images):
    _, dark = made(make_images(4))
    assert len(np.unique(dark.images)) > 10


def test_nothing_but_the_mask_is_left_of_the_image(make_images):
    images = make_images(4)
    masks = discs(images)
    other = silhouette(255 - images.images, images.labels, masks)
    assert np.array_equal(other.images, silhouette(images.images, images.labels, masks).images)


def test_coverage_is_the_area_in_thousandths(make_images):
    images = make_images(2, 20, 20)
    masks = np.zeros((2, 20, 20), np.uint8)
    masks[0, :5, :5], masks[1, :10] = 255, 51  # 25 of 400 pixels; 200 of 400 covered to a fifth, which is no object
    probed = silhouette(images.images, images.labels, masks)
    assert probed.kept_index.tolist() == [0]
    assert probed.factors["coverage"].tolist() == [63]  # 62.5 rounds up


def test_dropped_images_are_the_same_for_every_polarity_and_labels_follow(make_images, tmp_path):
    images = make_images(12)

    def every_third_empty(block):
        rows = np.array([int(name.removesuffix(".png")) for name in block.ids])
        return np.where((rows % 3 == 0)[:, None, None], 0, discs(block)).astype(np.uint8)

    built = build_probe_set("silhouette", images, folder=tmp_path, supplies=masked(every_third_empty))
    assert built.kept_index.tolist() == [1, 2, 4, 5, 7, 8, 10, 11]
    assert built.level_names == ("polarity=dark", "polarity=light", "polarity=grey")
    assert built.manifest["supplies"]["masks"]["kind"] == "discs"
    for level in range(3):
        probed = built.images(level, 0)
        assert np.array_equal(probed.labels, images.labels[built.kept_index])
        assert np.array_equal(probed.factors["coverage"] > 0, np.full(8, True))


def test_the_clean_accuracy_beside_it_is_taken_on_the_images_kept(make_images, tmp_path):
    images = make_images(1200)
    rows = np.arange(1200)
    empty = set(images.ids[rows % 4 == 3].tolist())  # all of class "dog"

    def masks(block):
        return np.where(np.isin(block.ids, list(empty))[:, None, None], 0, discs(block)).astype(np.uint8)

    built = build_probe_set("silhouette", images, folder=tmp_path, supplies=masked(masks))

    def answers(labels, right, index):
        logits = np.eye(4, dtype=np.float32)[np.where(right, labels, (labels + 1) % 4)]
        return Observations(logits, labels, index)

    # Clean: right on every image but the dogs, which are dropped. So on the kept images it is always right, over all only in 75 %.
    observed = {("clean", "", 0): answers(images.labels, images.labels != 3, rows)}
    for level, name in enumerate(built.level_names):
        probed = built.images(level, 0)
        observed["silhouette", name, 0] = answers(probed.labels, np.arange(900) % 2 == 0, built.kept_index)
    # Another probe that kept every image says how many there were to be probed.
    observed["other", "x=1", 0] = answers(images.labels, images.labels >= 0, rows)
    table = results_table([ObservedRun(record(), observed)], pairs=())
    found = {(row.probe, row.level, row.metric): row for row in table}

    assert found["clean", "", "accuracy"].value == 0.75
    average = found["silhouette", "auc", "retention"]
    chance = 1 / 3  # three classes are left
    assert average.value == pytest.approx((0.5 - chance) / (1.0 - chance))
    assert (average.n, average.n_rejected) == (900, 300)
    assert found["silhouette", "polarity=grey", "seed_ratio"].value == pytest.approx(0.5)


def record():
    return RunRecord(
        run="n", label="n", arm="network", method=None, teacher=None, teacher_run=None, student="n", model="m", family="cnn",
        readout="class", seed=0, parameters=1, training={}, history=[], estimates={}, timing={}, software={}, hardware={},
    )  # fmt: skip


def test_trifeature_brings_its_own_masks(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSDISTILL_CACHE", str(tmp_path / "cache"))
    test = load_splits("trifeature", {"n_train": 60, "n_test": 40, "n_conflict": 10}).test
    built = build_probe_set("silhouette", test, folder=tmp_path, supplies={"masks": mask_supply(None, test)})
    assert len(built.kept_index) == 40
    assert np.array_equal(built.images(1, 0).images[:, 0], object_coverage(test))


def test_a_set_of_which_no_mask_can_be_used_is_an_error(make_images, tmp_path):
    empty = masked(lambda block: np.zeros((len(block), *block.size), np.uint8))
    with pytest.raises(ImageError, match="probe 'silhouette' could treat none of the 5 images"):
        build_probe_set("silhouette", make_images(5), folder=tmp_path, supplies=empty)


def test_masks_are_part_of_what_names_the_set(make_images, tmp_path):
    images = make_images(5)
    folders = {build_probe_set("silhouette", images, folder=tmp_path, supplies=masked(discs, name)).folder for name in ("one", "two")}
    assert len(folders) == 2
