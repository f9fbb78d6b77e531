import numpy as np
import pytest

from crossdistill.core.errors import ImageError, UnknownNameError
from crossdistill.images._splits import load_splits


def load(path, **settings):
    return load_splits("parquet", {"path": path, **settings})


@pytest.fixture
def pictures(png):
    return [png(level) for level in range(20)]


TWO = [0, 1] * 10


def test_reads_the_hugging_face_layout_with_its_class_names(tmp_path, parquet_file, pictures):
    parquet_file(tmp_path / "set/data/train-00000-of-00001.parquet", pictures, TWO, names=["cat", "dog"])
    parquet_file(tmp_path / "set/data/test-00000-of-00001.parquet", pictures[:3], [1, 0, 1], names=["cat", "dog"])
    splits = load(tmp_path / "set")
    assert splits.test.class_names == ("cat", "dog")
    assert splits.test.labels.tolist() == [1, 0, 1]
    assert splits.test.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert splits.test.ids[1] == "data/test-00000-of-00001.parquet:1"


def test_several_files_are_read_in_the_order_of_their_names(tmp_path, parquet_file, pictures):
    parquet_file(tmp_path / "set/train-1.parquet", pictures[10:], TWO[10:])
    parquet_file(tmp_path / "set/train-0.parquet", pictures[:10], TWO[:10])
    splits = load(tmp_path / "set")
    levels = {}
    for part in (splits.train, splits.validation, splits.test):
        levels |= dict(zip(part.ids.tolist(), part.images[:, 0, 0, 0], strict=True))
    assert levels["train-0.parquet:3"] == 3
    assert levels["train-1.parquet:3"] == 13


@pytest.mark.parametrize("columns", ["image AS photo, label AS kind", "{'bytes': image, 'path': 'x'} AS img, label AS y"])
def test_any_column_names_will_do_where_only_one_fits(tmp_path, parquet_file, pictures, columns):
    splits = load(parquet_file(tmp_path / "one.parquet", pictures, TWO, columns))
    assert splits.train.class_names == ("0", "1")
    assert splits.test.provenance["cut_from"] == "train"


def test_text_labels_become_sorted_classes(tmp_path, parquet_file, pictures):
    splits = load(parquet_file(tmp_path / "one.parquet", pictures, ["dog", "cat"] * 10))
    assert splits.train.class_names == ("cat", "dog")
    assert {int(level) % 2 for level in splits.train.images[splits.train.labels == 1, 0, 0, 0]} == {0}


def test_two_possible_label_columns_need_a_choice(tmp_path, parquet_file, pictures):
    path = parquet_file(tmp_path / "one.parquet", pictures, TWO, "image, label AS fine, label // 2 AS coarse")
    with pytest.raises(ImageError, match=r"several columns could hold labels \(fine, coarse\): set `label_column`"):
        load(path)
    assert load(path, label_column="coarse").train.n_classes == 1


def test_an_unknown_column_offers_the_nearest(tmp_path, parquet_file, pictures):
    path = parquet_file(tmp_path / "one.parquet", pictures, TWO)
    with pytest.raises(UnknownNameError, match=r"label_column: there is no column 'labl'. Did you mean 'label'"):
        load(path, label_column="labl")


def test_a_file_without_images_lists_its_columns(tmp_path, parquet_file, pictures):
    path = parquet_file(tmp_path / "one.parquet", pictures, TWO, "label")
    with pytest.raises(ImageError, match=r"no column looks like encoded images: set `image_column`. The columns are: label \(BIGINT\)"):
        load(path)


def test_labels_out_of_range_are_named(tmp_path, parquet_file, pictures):
    path = parquet_file(tmp_path / "one.parquet", pictures, [*TWO[:19], 7], names=["cat", "dog"])
    with pytest.raises(
        ImageError, match=r"1 of 20 train images have a label out of range: the first, one.parquet:19, has 7, expected 0 to 1"
    ):
        load(path)


def test_a_test_label_that_training_lacks_is_named(tmp_path, parquet_file, pictures):
    parquet_file(tmp_path / "set/train.parquet", pictures, TWO)
    parquet_file(tmp_path / "set/test.parquet", pictures[:1], [5])
    with pytest.raises(ImageError, match="the test images have the label '5', which no training image has; known labels: 0, 1"):
        load(tmp_path / "set")


def test_an_unlabelled_test_split_is_refused(tmp_path, parquet_file, pictures):
    parquet_file(tmp_path / "set/train.parquet", pictures, TWO)
    parquet_file(tmp_path / "set/test.parquet", pictures[:2], [-1, None])
    with pytest.raises(ImageError, match="2 of 2 test images of 'parquet' have no label"):
        load(tmp_path / "set")


def test_unlabelled_training_images_stay_in_training(tmp_path, parquet_file, pictures):
    parquet_file(tmp_path / "set/train.parquet", pictures, [-1] * 10 + TWO[:10])
    parquet_file(tmp_path / "set/test.parquet", pictures[:2], [0, 1])
    splits = load(tmp_path / "set")
    assert (splits.validation.labels >= 0).all()
    assert (splits.train.labels == -1).sum() == 10


def test_missing_and_damaged_bytes_are_named(tmp_path, parquet_file, pictures):
    path = parquet_file(tmp_path / "one.parquet", [None, b"text", *pictures[2:]], TWO)
    with pytest.raises(ImageError, match=r"2 of 20 images cannot be read:\n  one.parquet:0: no bytes\n  one.parquet:1: not an image"):
        load(path)
    assert load(path, on_error="skip").train.provenance["n_skipped"] == 2


def test_what_is_not_parquet_is_refused(tmp_path):
    (tmp_path / "train.parquet").write_text("no")
    with pytest.raises(ImageError, match=r"cannot read .*train.parquet"):
        load(tmp_path)


def test_a_damaged_page_is_a_message_and_not_a_crash(tmp_path, parquet_file, pictures):
    path = parquet_file(tmp_path / "one.parquet", pictures, TWO)
    damaged = bytearray(path.read_bytes())
    damaged[4:60] = b"\xff" * 56  # the first page; the footer, which names the columns, is whole
    path.write_bytes(damaged)
    with pytest.raises(ImageError, match=r"cannot read .*one.parquet"):
        load(path)


def test_a_folder_without_parquet_files_says_what_was_expected(tmp_path):
    with pytest.raises(ImageError, match=r"holds no .parquet file: expected train\*.parquet"):
        load(tmp_path)


def test_test_files_alone_are_refused(tmp_path, parquet_file, pictures):
    parquet_file(tmp_path / "set/test.parquet", pictures, TWO)
    with pytest.raises(ImageError, match=r"holds test files \(test.parquet\) but no train"):
        load(tmp_path / "set")


def test_brackets_and_stars_in_a_path_are_taken_literally(tmp_path, parquet_file, pictures):
    path = parquet_file(tmp_path / "a[b]*/one.parquet", pictures, TWO)
    assert len(load(path).train) == 15  # 20 less a fifth for testing, less a tenth of the rest, at least one


def test_the_cache_follows_the_bytes_and_not_the_place(tmp_path, parquet_file, pictures, cache):
    first = load(parquet_file(tmp_path / "a/one.parquet", pictures, TWO))
    (tmp_path / "b").mkdir()
    (tmp_path / "a/one.parquet").rename(tmp_path / "b/one.parquet")
    assert np.array_equal(load(tmp_path / "b/one.parquet").test.images, first.test.images)
    assert len(list((cache / "images").iterdir())) == 1
