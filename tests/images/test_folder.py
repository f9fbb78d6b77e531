import numpy as np
import pytest
from PIL import Image

from crossdistill.core.errors import ImageError, SettingError
from crossdistill.images._splits import load_splits

FOUR = {"train/cat": 10, "train/dog": 10, "test/cat": 3, "test/dog": 3}


def load(path, **settings):
    return load_splits("folder", {"path": path, **settings})


def test_reads_one_class_per_folder_with_its_own_test_split(photos):
    splits = load(photos(FOUR))
    assert splits.test.class_names == ("cat", "dog")
    assert splits.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert splits.test.ids.tolist()[:2] == ["test/cat/000.png", "test/cat/001.png"]
    # photos() counts its grey levels up: 20 training images come first.
    assert splits.test.images[:, 0, 0, 0].tolist() == [21, 22, 23, 24, 25, 26]
    assert (len(splits.train), len(splits.validation)) == (18, 2)


def test_val_serves_as_test_where_there_is_no_test(photos):
    splits = load(photos({"train/cat": 10, "train/dog": 10, "val/dog": 4}))
    assert splits.test.labels.tolist() == [1, 1, 1, 1]


def test_without_a_test_split_a_stratified_fifth_is_cut_and_the_provenance_says_so(photos):
    splits = load(photos({"cat": 20, "dog": 10}))
    assert np.bincount(splits.test.labels).tolist() == [4, 2]
    assert splits.test.provenance["cut_from"] == "train"
    assert not set(splits.test.ids) & {*splits.train.ids, *splits.validation.ids}


def test_grey_palette_transparent_and_16_bit_images_become_rgb(photos, png):
    root = photos(FOUR)
    for name, mode in (("000", "L"), ("001", "P"), ("002", "RGBA")):
        (root / "test/cat" / f"{name}.png").write_bytes(png(200, mode=mode))
    Image.fromarray(np.full((8, 8), 200 * 257, np.uint16)).save(root / "test/dog/000.png")
    images = load(root).test.images
    assert images.shape == (6, 3, 8, 8)
    assert (images[:4] == 200).all()


def test_an_exif_orientation_is_not_applied(photos):
    root = photos(FOUR)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    Image.fromarray(pixels).save(root / "test/cat/000.png", exif=exif)
    assert load(root).test.images[0, 0, :, 0].tolist() == [255] * 4 + [0] * 4


def test_mixed_sizes_name_two_examples_and_the_setting(photos, png):
    root = photos(FOUR)
    (root / "train/dog/004.png").write_bytes(png(9, size=(8, 6)))
    with pytest.raises(ImageError, match=r"train/cat/000.png is 8 x 8, train/dog/004.png is 8 x 6 \(height x width\). Set `size`"):
        load(root)


def test_a_test_split_of_another_size_is_mixed_too(photos, png):
    root = photos(FOUR)
    for file in (root / "test").rglob("*.png"):
        file.write_bytes(png(9, size=(4, 4)))
    with pytest.raises(ImageError, match=r"train/cat/000.png is 8 x 8, test/cat/000.png is 4 x 4"):
        load(root)


@pytest.mark.parametrize(("size", "shape"), [(4, (4, 4)), ([4, 6], (4, 6)), (16, (16, 16))])
def test_size_brings_all_images_to_one(photos, png, size, shape):
    root = photos(FOUR)
    (root / "train/dog/004.png").write_bytes(png(9, size=(30, 10)))
    assert load(root, size=size).train.size == shape


def test_size_keeps_proportions_by_cropping_to_the_centre(photos):
    root = photos(FOUR)
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 255  # the middle third is what a square crop keeps
    Image.fromarray(pixels).save(root / "test/cat/000.png")
    # 8 x 24 scaled to cover 8 x 8 is itself: the crop is exact, no tolerance needed.
    assert (load(root, size=8).test.images[0] == 255).all()


def test_a_size_below_one_is_refused(photos):
    with pytest.raises(SettingError, match="size must be at least 1 pixel, got 0"):
        load(photos(FOUR), size=0)


def damage(root):
    """A truncated PNG and a text file named .png."""
    whole = root / "train/cat/003.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).save(whole)
    whole.write_bytes(whole.read_bytes()[:120])
    (root / "train/dog/007.png").write_text("not a picture")
    return root


def test_damaged_files_are_an_error_that_names_them(photos):
    with pytest.raises(ImageError) as refusal:
        load(damage(photos(FOUR)))
    text = str(refusal.value)
    assert "2 of 20 images cannot be read" in text
    assert "train/cat/003.png: image file is truncated" in text
    assert "train/dog/007.png: not an image" in text
    assert "on_error: skip" in text


def test_damaged_files_are_skipped_and_counted_only_when_asked(photos):
    splits = load(damage(photos(FOUR)), on_error="skip")
    ids = {*splits.train.ids, *splits.validation.ids}
    assert len(ids) == 18
    assert not {"train/cat/003.png", "train/dog/007.png"} & ids
    assert splits.train.provenance["n_skipped"] == 2
    assert list(splits.train.provenance["skipped"]) == ["train/cat/003.png", "train/dog/007.png"]
    level = dict(zip(splits.train.ids, splits.train.images[:, 0, 0, 0], strict=True))
    assert all(level[f"train/cat/00{row}.png"] == row + 1 for row in (1, 2, 4, 5) if f"train/cat/00{row}.png" in level)


def test_a_skipping_cache_does_not_hide_the_damage_from_a_strict_start(photos):
    root = damage(photos(FOUR))
    load(root, on_error="skip")
    with pytest.raises(ImageError, match="2 of 20 images cannot be read"):
        load(root)


def test_only_the_first_ten_damaged_files_are_listed(photos):
    root = photos({"train/cat": 30, "train/dog": 3, "test/cat": 2})
    for file in (root / "train/cat").iterdir():
        file.write_text("no")
    with pytest.raises(ImageError, match="and 20 more") as refusal:
        load(root)
    assert str(refusal.value).count("not an image") == 10


def test_nothing_readable_is_an_error_even_when_skipping(photos):
    root = photos({"cat": 2, "dog": 1})
    for file in root.rglob("*.png"):
        file.write_text("no")
    with pytest.raises(ImageError, match="none of the 3 train images can be read"):
        load(root, on_error="skip")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"there is no file or folder .*nowhere"):
        load(tmp_path / "nowhere")


def test_a_folder_without_classes_says_what_was_expected(tmp_path):
    with pytest.raises(ImageError, match=r"has no class folders: expected FOLDER/CLASS"):
        load(tmp_path)


def test_empty_class_folders_are_named(photos):
    root = photos(FOUR)
    (root / "train/emu").mkdir()
    with pytest.raises(ImageError, match=r"1 class folders of .*train hold no image \(emu\)"):
        load(root)


def test_a_test_class_that_training_lacks_is_named(photos):
    with pytest.raises(ImageError, match=r"classes that training lacks: emu. Training has: cat"):
        load(photos({"train/cat": 5, "test/emu": 1}))


def test_a_changed_file_is_decoded_again(photos, png):
    root = photos(FOUR)
    load(root)
    (root / "test/cat/000.png").write_bytes(png(250, mode="L"))
    assert load(root).test.images[0].max() == 250
