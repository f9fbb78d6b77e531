"""Images that show the same picture, however each is stored, and studies that leave such images out or test on those of another source."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from crossdistill.core.errors import ImageError, UnknownNameError
from crossdistill.core.types import ImageSet, Splits
from crossdistill.images._alike import alike, without
from crossdistill.images._splits import load_splits

CLASSES = ("cat", "rocket")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """64 photographs, 32 x 32: cuttings that do not overlap."""
    whole = data.astronaut()
    cut = [whole[row : row + 64 : 2, column : column + 64 : 2] for row in range(0, 512, 64) for column in range(0, 512, 64)]
    return np.stack(cut)


def as_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def stored(pictures: np.ndarray) -> np.ndarray:
    return pictures.transpose(0, 3, 1, 2).copy()


def test_a_picture_is_found_again_however_it_is_stored(pictures: np.ndarray) -> None:
    compressed = np.stack([as_jpeg(picture, 75) for picture in pictures])
    assert (compressed != pictures).any((1, 2, 3)).sum() > 60
    assert alike(stored(compressed), stored(pictures[5:15])).nonzero()[0].tolist() == list(range(5, 15))
    assert not alike(stored(pictures[:5]), stored(pictures[5:])).any()


@pytest.mark.parametrize("size", [(5, 9), (33, 40)])
def test_fields_fit_images_of_any_size(size: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 3, *size), dtype=np.uint8)
    assert alike(images, images[[1, 4]]).tolist() == [False, True, False, False, True, False]
    assert not alike(255 - images, images).any()


def test_uniform_images_are_told_apart_by_their_grey_level() -> None:
    levels = np.array([0, 5, 7, 250, 255], np.uint8)[:, None, None, None] * np.ones((1, 3, 16, 16), np.uint8)
    assert alike(levels, levels[:1]).tolist() == [True, True, False, False, False]  # 6 levels of 255 are the limit


def write(folder: Path, split: str, pictures: np.ndarray, suffix: str) -> None:
    for number, picture in enumerate(pictures):
        path = folder / split / CLASSES[number % 2] / f"{number:03d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)


@pytest.fixture
def folders(pictures: np.ndarray, tmp_path: Path) -> tuple[Path, Path]:
    """48 JPEG images for training and 8 for testing; and PNG images to test on, of which 10 are among those for training."""
    own, other = tmp_path / "own", tmp_path / "other"
    write(own, "train", pictures[:48], "jpg")
    write(own, "test", pictures[48:56], "jpg")
    write(other, "train", pictures[:4], "png")
    write(other, "test", pictures[38:48], "png")
    return own, other


def splits_of(own: Path, **more: Any) -> Splits:
    return load_splits("folder", {"path": own}, validation_images=8, **more)


def test_excluded_images_are_neither_trained_nor_validated_on(folders: tuple[Path, Path]) -> None:
    own, other = folders
    plain, splits = splits_of(own), splits_of(own, exclude=f"folder:{other}")
    assert (len(plain.train), len(splits.train), len(splits.validation)) == (40, 30, 8)
    excluded = load_splits("folder", {"path": other}).test
    assert alike(plain.train.images, excluded.images).any()
    for images in (splits.train, splits.validation):
        assert not alike(images.images, excluded.images).any()
    assert np.array_equal(splits.test.images, plain.test.images)
    again = splits_of(own, exclude=f"folder:{other}")
    assert again.train.ids.tolist() == splits.train.ids.tolist()


def test_excluded_images_are_no_transfer_images_either(folders: tuple[Path, Path], tmp_path: Path, pictures: np.ndarray) -> None:
    own, other = folders
    write(tmp_path / "more", "train", pictures[44:], "jpg")  # of these 20, 4 are excluded and 8 are the study's own test images
    splits = splits_of(own, exclude=f"folder:{other}", transfer=f"folder:{tmp_path / 'more'}")
    assert len(splits.train) == 30 + 8
    assert not alike(splits.train.images, load_splits("folder", {"path": other}).test.images).any()


def test_another_source_gives_the_test_images(folders: tuple[Path, Path]) -> None:
    own, other = folders
    plain, splits = splits_of(own), splits_of(own, test=f"folder:{other}")
    assert len(splits.test) == 10
    assert np.array_equal(splits.test.images, load_splits("folder", {"path": other}).test.images)
    assert splits.train.ids.tolist() == plain.train.ids.tolist()


def test_a_source_without_a_test_split_gives_all_its_images(folders: tuple[Path, Path]) -> None:
    own, other = folders
    assert len(splits_of(own, test=f"folder:{other / 'test'}").test) == 10


def test_without_test_images_of_its_own_a_source_keeps_all_for_training(folders: tuple[Path, Path]) -> None:
    own, other = folders
    assert len(load_splits("folder", {"path": own / "train"}, validation_images=8, test=f"folder:{other}").train) == 40


def test_the_validation_images_stand_for_the_test_images(folders: tuple[Path, Path]) -> None:
    splits = splits_of(folders[0], test="validation")
    assert splits.test is splits.validation
    trifeature = load_splits("trifeature", {"n_values": 2, "n_train": 64, "n_test": 8, "n_conflict": 8, "side": 16}, test="validation")
    assert not trifeature.extra, "extra sets are test images as well"


def test_what_cannot_be_is_refused(folders: tuple[Path, Path], tmp_path: Path, pictures: np.ndarray) -> None:
    own, other = folders
    with pytest.raises(UnknownNameError, match="folders"):
        splits_of(own, test=f"folders:{other}")
    with pytest.raises(ImageError, match=r"have the classes cat, and the training images cat, rocket"):
        splits_of(own, test=f"folder:{only_cats(tmp_path / 'cats', pictures)}")
    everything = tmp_path / "everything"
    write(everything, "test", pictures[:48], "png")
    write(everything, "train", pictures[:2], "png")
    with pytest.raises(ImageError, match="all 48 images of train are among those to be excluded"):
        splits_of(own, exclude=f"folder:{everything}")


def only_cats(folder: Path, pictures: np.ndarray) -> Path:
    write(folder, "test", pictures[:1], "png")
    return folder / "test"


def test_images_of_another_size_cannot_be_compared() -> None:
    def images(side: int) -> ImageSet:
        about = {"key": str(side), "split": "train"}
        return ImageSet(np.zeros((1, 3, side, side), np.uint8), np.zeros(1, np.int64), np.array(["a"]), ("a",), about)

    with pytest.raises(ImageError, match="bring them to one size"):
        without(images(8), images(16))
