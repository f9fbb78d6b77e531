"""The tables on disk: typed columns, whole files, readable errors."""

import duckdb
import pytest

from crossdistill.compare import read_table, write_table
from crossdistill.core.errors import StudyError
from crossdistill.core.records import InheritanceRow, ResultRow, Row


@pytest.fixture
def row():
    return ResultRow(
        run="kd-1", arm="kd", method="kd", teacher="vit", student="cnn", seed=3, probe="clean", level="", metric="accuracy",
        value=1 / 3, low=0.1, high=0.7, n=10, unit="share", status="ok", reason="it's <b>quoted</b> \u00e9",
    )  # fmt: skip


def column_types(path):
    with duckdb.connect() as database:
        return {name: kind for name, kind, *_ in database.sql(f"DESCRIBE SELECT * FROM '{path}'").fetchall()}


def test_rows_come_back_as_they_were(tmp_path, row):
    missing = row.model_copy(update=dict(value=None, low=None, high=None, status="not_measurable", method=None))
    write_table([row, missing], tmp_path / "results.parquet")
    assert read_table(tmp_path / "results.parquet", ResultRow) == [row, missing]


def test_order_is_kept_in_a_long_table(tmp_path, row):
    rows = [row.model_copy(update=dict(seed=seed)) for seed in range(5000)]
    write_table(rows, tmp_path / "results.parquet")
    assert [r.seed for r in read_table(tmp_path / "results.parquet", ResultRow)] == list(range(5000))


def test_columns_have_their_types_also_where_every_value_is_missing(tmp_path, row):
    write_table([row.model_copy(update=dict(value=None, low=None, high=None, reason=None))], tmp_path / "results.parquet")
    types = column_types(tmp_path / "results.parquet")
    assert list(types) == list(ResultRow.model_fields)
    assert (types["value"], types["reason"], types["n"], types["status"]) == ("DOUBLE", "VARCHAR", "BIGINT", "VARCHAR")


@pytest.mark.parametrize("row_type", [ResultRow, InheritanceRow])
def test_an_empty_table_keeps_its_columns(tmp_path, row_type):
    write_table([], tmp_path / "empty.parquet", row_type)
    assert read_table(tmp_path / "empty.parquet", row_type) == []
    assert list(column_types(tmp_path / "empty.parquet")) == list(row_type.model_fields)


def test_an_empty_table_of_no_known_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match="pass row_type"):
        write_table([], tmp_path / "empty.parquet")


def test_the_same_rows_give_the_same_bytes(tmp_path, row):
    for name in ("a", "b"):
        write_table([row], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_write_leaves_the_old_table(tmp_path, row, monkeypatch):
    path = tmp_path / "results.parquet"
    write_table([row], path)

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", no_space)
    with pytest.raises(StudyError, match="No space left"):
        write_table([row, row], path)
    assert read_table(path, ResultRow) == [row]
    assert [file.name for file in tmp_path.iterdir()] == ["results.parquet"]


def test_a_missing_table_says_what_to_do(tmp_path):
    with pytest.raises(StudyError, match="run the study first"):
        read_table(tmp_path / "results.parquet", ResultRow)


def test_a_damaged_table_is_named(tmp_path, row):
    path = tmp_path / "results.parquet"
    write_table([row], path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StudyError, match=r"results\.parquet is damaged"):
        read_table(path, ResultRow)


def test_a_table_of_another_kind_is_refused(tmp_path, row):
    write_table([row], tmp_path / "results.parquet")
    with pytest.raises(StudyError, match="of another version"):
        read_table(tmp_path / "results.parquet", InheritanceRow)


def test_a_column_that_no_table_can_hold_is_refused(tmp_path):
    class Nested(Row):
        parts: list[int]

    with pytest.raises(TypeError, match="column 'parts' must hold one plain type"):
        write_table([Nested(parts=[1])], tmp_path / "nested.parquet")
