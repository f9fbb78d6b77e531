import importlib.util
import pickle
import resource
import signal

import numpy as np
import pytest
from PIL import Image

from crossdistill.core.errors import ImageError, SettingError, StudyError
from crossdistill.core.types import ImageSet
from crossdistill.images._splits import load_splits
from crossdistill.probes import _grabcut, _mask_maker
from crossdistill.probes._mask_folder import mask_picture
from crossdistill.probes._mask_maker import MaskMaker, made_masks
from crossdistill.probes._masks import mask_supply


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def images():
    """Three images with names as image folders give them; row k is k everywhere."""
    pixels = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 8, 10), np.uint8)
    return ImageSet(pixels, np.arange(3), np.array(["test/cat/a.jpg", "test/dog/b.png", "c"]), ("x", "y", "z"))


def save(path, levels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(levels, np.uint8), mode).save(path)


def half(size=(8, 10), value=255):
    levels = np.zeros(size, np.uint8)
    levels[:, : size[1] // 2] = value
    return levels


def test_pictures_are_found_by_id_with_or_without_suffix(images, tmp_path):
    save(tmp_path / "m/test/cat/a.png", half())
    save(tmp_path / "m/test/dog/b.png.png", half()[:, ::-1])
    save(tmp_path / "m/c.bmp", np.full((8, 10), 51))
    supply = mask_supply(str(tmp_path / "m"), images)
    masks = supply.of(images)
    assert np.array_equal(masks[0], half())
    assert np.array_equal(masks[1], half()[:, ::-1])
    assert np.array_equal(supply.of(images.subset(np.array([2, 0])))[1], half())
    assert (supply.about["n_found"], supply.about["n_missing"]) == (3, 0)


def test_an_image_without_a_picture_has_an_empty_mask(images, tmp_path):
    save(tmp_path / "m/c.png", half())
    supply = mask_supply(str(tmp_path / "m"), images)
    assert supply.of(images).any(axis=(1, 2)).tolist() == [False, False, True]
    assert supply.about["n_missing"] == 2


def test_the_identity_is_the_content_of_the_files_that_are_used(images, tmp_path):
    save(tmp_path / "m/c.png", half())
    first = mask_supply(str(tmp_path / "m"), images).identity
    save(tmp_path / "m/other.png", half())
    assert mask_supply(str(tmp_path / "m"), images).identity == first
    save(tmp_path / "m/c.png", half()[:, ::-1])
    assert mask_supply(str(tmp_path / "m"), images).identity != first


def test_an_alpha_channel_counts_only_where_something_is_transparent(tmp_path):
    grey = np.full((8, 10), 51)
    grey[:, 5:] = 102
    grey[0] = 200
    colour = np.stack([grey, grey, grey], axis=2)
    opaque, seen = np.full((8, 10), 255), half()
    save(tmp_path / "opaque.png", np.dstack([colour, opaque]))
    save(tmp_path / "opaque-grey.png", np.dstack([grey, opaque]))
    save(tmp_path / "two-levels.png", np.dstack([half(value=1)] * 3 + [opaque]))
    save(tmp_path / "cut-out.png", np.dstack([colour, seen]))
    save(tmp_path / "empty.png", np.dstack([colour, 0 * opaque]))
    assert np.array_equal(mask_picture(tmp_path / "opaque.png", (8, 10)), grey)
    assert np.array_equal(mask_picture(tmp_path / "opaque-grey.png", (8, 10)), grey)
    assert np.array_equal(mask_picture(tmp_path / "two-levels.png", (8, 10)), half())
    assert np.array_equal(mask_picture(tmp_path / "cut-out.png", (8, 10)), seen)
    assert not mask_picture(tmp_path / "empty.png", (8, 10)).any()


def test_two_pictures_for_one_image_are_refused(images, tmp_path):
    save(tmp_path / "m/c.png", half())
    save(tmp_path / "m/c.bmp", half())
    with pytest.raises(ImageError, match=r"image c has more than one mask: c.bmp, c.png"):
        mask_supply(str(tmp_path / "m"), images)


def test_a_folder_with_other_names_says_what_was_expected(images, tmp_path):
    save(tmp_path / "m/017.png", half())
    with pytest.raises(ImageError, match=r"no mask for any of the 3 images: .*test/cat/a.png\), found 017.png"):
        mask_supply(str(tmp_path / "m"), images)


def test_a_damaged_picture_is_named(images, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/c.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"the mask .*c.png cannot be read"):
        mask_supply(str(tmp_path / "m"), images).of(images)


def test_two_levels_and_palettes_mean_covered_or_not_and_greys_a_share(tmp_path):
    save(tmp_path / "binary.png", half(value=1))
    assert np.array_equal(mask_picture(tmp_path / "binary.png", (8, 10)), half())
    greys = np.arange(80).reshape(8, 10)
    save(tmp_path / "grey.png", greys)
    assert np.array_equal(mask_picture(tmp_path / "grey.png", (8, 10)), greys)
    palette = Image.fromarray((greys % 3).astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    palette.save(tmp_path / "classes.png")
    assert np.array_equal(mask_picture(tmp_path / "classes.png", (8, 10)), (greys % 3 > 0) * 255)


def test_of_a_cut_out_picture_the_opaque_part_is_the_object(tmp_path):
    pixels = np.zeros((8, 10, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = 77, half()
    save(tmp_path / "cut.png", pixels)
    assert np.array_equal(mask_picture(tmp_path / "cut.png", (8, 10)), half())


def test_a_picture_of_another_size_is_scaled_to_cover_and_cropped_as_images_are(tmp_path):
    wide = np.zeros((16, 40), np.uint8)
    wide[:, 12:28] = 255  # half as large it is 8 x 20, of which an 8 x 10 image shows the middle: the object is in columns 1 to 8
    save(tmp_path / "wide.png", wide)
    mask = mask_picture(tmp_path / "wide.png", (8, 10))
    assert mask.shape == (8, 10)
    assert (mask[:, 1:9] == 255).all()
    assert (mask[:, [0, 9]] == 0).all()


def test_a_source_that_knows_its_masks_gives_them_without_being_asked():
    test = load_splits("trifeature", {"n_train": 60, "n_test": 20, "n_conflict": 10}).test
    supply = mask_supply(None, test)
    masks = supply.of(test.subset(np.arange(5)))
    assert masks.shape == (5, 32, 32)
    assert len(np.unique(masks)) > 5
    assert supply.identity == {"kind": "source", "source": "trifeature", "version": 1}


def test_without_masks_and_without_opencv_the_three_ways_are_named(images, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        SettingError, match=r"one of three ways: a folder .*torchvision/fcn_resnet101.*pip install 'crossdistill\[opencv\]'"
    ):
        mask_supply(None, images)
    with pytest.raises(SettingError, match=r"GrabCut needs OpenCV: pip install 'crossdistill\[opencv\]'"):
        mask_supply("grabcut", images)


def test_a_name_that_is_nothing_is_refused_with_the_ways(images):
    with pytest.raises(SettingError, match="masks cannot come from 'no/such/folder', which is neither a folder nor a name that is known"):
        mask_supply("no/such/folder", images)


def test_a_network_is_made_by_whoever_can(images):
    def segment(name):
        return MaskMaker(lambda pixels: pixels[:, 0] * 10, {"network": name}, {"name": name})

    supply = mask_supply("torchvision/some_net", images, segment=segment)
    assert supply.of(images)[:, 0, 0].tolist() == [0, 10, 20]
    assert supply.identity == {"network": "torchvision/some_net"}


class Counting:
    """A maker that tells how many masks it made."""

    def __init__(self):
        self.made = 0

    def __call__(self, pixels):
        self.made += len(pixels)
        return pixels[:, 0] * 3

    def maker(self, identity="counting"):
        return MaskMaker(self, identity, {})


def test_a_mask_is_made_once_however_often_and_by_whomever_it_is_asked_for(images):
    counting = Counting()
    first = made_masks(counting.maker(), images)
    assert np.array_equal(first.of(images.subset(np.array([2, 1]))), images.images[[2, 1], 0] * 3)
    assert np.array_equal(made_masks(counting.maker(), images).of(images), images.images[:, 0] * 3)
    assert counting.made == 3
    made_masks(counting.maker("another"), images).of(images)
    assert counting.made == 6


def test_images_that_share_a_name_still_get_their_own_masks(images):
    twins = ImageSet(images.images, images.labels, np.array(["same"] * 3), images.class_names)
    assert np.array_equal(made_masks(Counting().maker(), twins).of(twins), images.images[:, 0] * 3)
    supply = made_masks(Counting().maker(), twins)
    alone = [supply.of(twins.subset(np.array([row])))[0] for row in range(3)]
    assert np.array_equal(alone, images.images[:, 0] * 3)


def test_what_was_made_before_an_interruption_stays(images, monkeypatch):
    monkeypatch.setattr(_mask_maker, "AT_ONCE", 1)
    counting = Counting()

    def stops_at_two(pixels):
        if pixels[0, 0, 0, 0] == 2:
            raise KeyboardInterrupt
        return counting(pixels)

    with pytest.raises(KeyboardInterrupt):
        made_masks(MaskMaker(stops_at_two, "counting", {}), images).of(images)
    made_masks(counting.maker(), images).of(images)
    assert counting.made == 3


def test_a_mask_that_was_damaged_on_disk_is_made_again(images, cache):
    counting = Counting()
    supply = made_masks(counting.maker(), images)
    supply.of(images)
    kept = np.load(next(cache.glob("masks/*/masks.npy")), mmap_mode="r+")
    kept[1, 2, 3] ^= 1
    assert np.array_equal(supply.of(images), images.images[:, 0] * 3)
    assert counting.made == 4


def test_a_supply_of_kept_masks_can_be_sent_to_another_process(images):
    supply = made_masks(MaskMaker(_grabcut.grabcut_masks, "any", {}), images)
    assert pickle.loads(pickle.dumps(supply)).identity == "any"


def test_a_cache_that_cannot_be_written_is_one_sentence(images, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CROSSDISTILL_CACHE", str(tmp_path / "file"))
    with pytest.raises(StudyError, match="cannot keep masks in .*set CROSSDISTILL_CACHE"):
        made_masks(Counting().maker(), images)


def test_a_full_disk_is_one_sentence_and_not_a_signal(images, monkeypatch):
    supply = made_masks(Counting().maker(), images)
    # A limit on what this process may write stands for the end of the disk: the file as it is made is longer, but has no contents.
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(StudyError, match="cannot keep masks in .*File too large.*Free some space there"):
            supply.of(images)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, handler)
    assert np.array_equal(supply.of(images), images.images[:, 0] * 3)


def test_a_mask_file_that_was_cut_short_is_made_again(images, cache):
    counting = Counting()
    made_masks(counting.maker(), images).of(images)
    path = next(cache.glob("masks/*/masks.npy"))
    path.write_bytes(path.read_bytes()[:-10])
    assert np.array_equal(made_masks(counting.maker(), images).of(images), images.images[:, 0] * 3)
    assert counting.made == 5  # the first mask is zero as the new file is
