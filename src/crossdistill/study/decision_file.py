"""A file of decisions as a table: its layout found, its rows checked, every error told with the network and image it is about."""

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from crossdistill.compare.observed import CLEAN
from crossdistill.core.errors import DecisionsError, nearest

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

NAMES = {
    "network": ("network", "subject"),
    "image": ("image", "image_id", "row"),
    "decision": ("decision",),
    "label": ("label", "true"),
    "shape": ("shape",),
    "texture": ("texture",),
    "colour": ("colour",),
    "probe": ("probe",),
    "level": ("level",),
    "draw": ("draw",),
}
"""Each column, and the names under which a file may hold it."""

CLASSES = ("label", "shape", "texture", "colour")
CUES = CLASSES[1:]
CLASS_TYPES = ("VARCHAR", "ENUM", "BOOLEAN", "BIGINT", "INTEGER", "SMALLINT", "TINYINT", "UBIGINT", "UINTEGER", "USMALLINT", "UTINYINT")

ANSWER = "network '{}', image '{}' of set '{}'"


class _Layout(NamedTuple):
    """Where a file holds what: {column: its name there}, and the networks where each has a column of its own."""

    columns: Mapping[str, str]
    networks: Sequence[str]


def load_answers(database: "DuckDBPyConnection", path: Path) -> None:
    """Make the table `answers` of a file, one row for each answer, and the view `sets`, which says of each set of images its split.

    All columns of NAMES are there as text, NULL where there is nothing; `place` numbers the rows. The split is "test" where the images
    are the clean ones or again shown by a probe, else the set's name. Raises DecisionsError as `read_decisions` says.
    """
    import duckdb

    try:
        _load(database, path)
    except duckdb.Error as error:
        raise DecisionsError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    for check in (_whole, _once, _draws_agree, _complete, _one_class_each, _labelled_alike, _measurable, _written_alike):
        if found := check(database):
            raise DecisionsError(f"{path}: {found}")


def _load(database: "DuckDBPyConnection", path: Path) -> None:
    source = _source(database, path)
    layout = _layout(path, dict(zip((name.lower().strip() for name in source.columns), source.columns, strict=True)))
    _check_types(path, source, layout)
    columns = {name: _cell(layout.columns[name]) if name in layout.columns else "NULL" for name in NAMES}
    if layout.networks:
        columns["network"] = f"unnest([{', '.join(map(_text, layout.networks))}])"
        columns["decision"] = f"unnest([{', '.join(map(_cell, layout.networks))}])"
    usual = {"probe": "conflict" if {"shape", "texture"} <= layout.columns.keys() else CLEAN[0], "level": "", "draw": "0"}
    columns |= {name: f"coalesce({columns[name]}, {_text(value)})" for name, value in usual.items()}
    chosen = ", ".join(f"({expression})::VARCHAR AS {name}" for name, expression in columns.items())
    database.execute(f"CREATE TABLE answers AS SELECT *, row_number() OVER () AS place FROM (SELECT {chosen} FROM source)")
    database.execute(
        "CREATE VIEW sets AS SELECT probe, CASE WHEN bool_and(image IN (SELECT image FROM answers WHERE probe = 'clean')) "
        "THEN 'test' ELSE probe END AS split FROM answers GROUP BY probe"
    )


def _source(database: "DuckDBPyConnection", path: Path) -> "DuckDBPyRelation":
    """The file as the view `source`."""
    if not path.is_file():
        raise DecisionsError(f"there is no file {path}: give a .csv, .csv.gz or .parquet file of decisions")
    name = glob.escape(str(path))  # DuckDB would read [ and * in a name as a pattern
    if path.suffix == ".parquet":
        source = database.read_parquet(name)
    elif path.name.endswith((".csv", ".csv.gz")):
        # Nothing is left to be guessed but the line ends: all is text, so that neither "na" nor "007" is changed.
        source = database.read_csv(name, header=True, all_varchar=True, sep=",", quotechar='"', escapechar='"', skiprows=0, na_values="")
    else:
        raise DecisionsError(f"{path} is of an unknown kind: give a .csv, .csv.gz or .parquet file of decisions")
    source.create_view("source")
    return source


def _layout(path: Path, given: Mapping[str, str]) -> _Layout:
    """Which column is which, from {name in lower case: name in the file}."""
    found = {column: [given[name] for name in names if name in given] for column, names in NAMES.items()}
    for column, names in found.items():
        if len(names) > 1:
            raise DecisionsError(f"{path} holds the column '{column}' twice, as {' and '.join(names)}: leave one")
    columns = {column: names[0] for column, names in found.items() if names}
    others = [name for name in given.values() if name not in columns.values()]
    by_image = not {"network", "decision"} & columns.keys()
    missing = [column for column in ("image",) + (() if by_image else ("network", "decision")) if column not in columns]
    if missing or (by_image and not others):
        lacking = " and ".join(f"'{column}'" for column in missing) or "'network' and 'decision'"
        raise DecisionsError(f"{path} has no column {lacking}; its columns are {', '.join(given.values())}")
    if others and not by_image:
        known = sorted(name for names in NAMES.values() for name in names)
        raise DecisionsError(f"{path} has an unknown column '{others[0]}'.{nearest(others[0], known)} Known columns: {', '.join(known)}.")
    if "level" in columns and "probe" not in columns:
        raise DecisionsError(f"{path} has a column 'level' and no column 'probe': say of which probe they are the levels")
    return _Layout(columns, others if by_image else ())


def _check_types(path: Path, source: "DuckDBPyRelation", layout: _Layout) -> None:
    """Refuse numbers with a fraction as classes: 7.0 and 7 would be two classes."""
    types = dict(zip(source.columns, map(str, source.types), strict=True))
    for name in [layout.columns[column] for column in ("image", "decision", *CLASSES) if column in layout.columns] + [*layout.networks]:
        if not types[name].startswith(CLASS_TYPES):
            raise DecisionsError(f"{path}: column '{name}' holds {types[name]}, expected text or whole numbers")


def _whole(database: "DuckDBPyConnection") -> str | None:
    """No row may lack its network, image or decision."""
    if not _first(database, "SELECT 1 FROM answers LIMIT 1"):
        return "it holds no decisions"
    row = _first(
        database, "SELECT network, image, decision FROM answers WHERE network IS NULL OR image IS NULL OR decision IS NULL ORDER BY place"
    )
    if not row:
        return None
    empty = next(name for name, value in zip(("network", "image", "decision"), row, strict=True) if value is None)
    return f"'{empty}' is empty for network '{row[0] or ''}', image '{row[1] or ''}': every answer must be written, no answer as na"


def _once(database: "DuckDBPyConnection") -> str | None:
    """No network may answer an image of a set twice."""
    row = _first(
        database,
        "SELECT network, image, probe, level, draw, count(*) FROM answers GROUP BY ALL HAVING count(*) > 1 ORDER BY probe, network, image",
    )
    if not row:
        return None
    return f"{ANSWER.format(*row)} occurs {row[5]} times (level '{row[3]}', draw {row[4]}): each image once, or name its draw"


def _draws_agree(database: "DuckDBPyConnection") -> str | None:
    """Draws are numbered, and every level of a probe has the same; the clean images have one level and one draw."""
    if row := _first(database, "SELECT draw FROM answers WHERE try_cast(draw AS INTEGER) IS NULL"):
        return f"'draw' must be a whole number, got '{row[0]}'"
    if row := _first(database, "SELECT level, draw FROM answers WHERE probe = 'clean' AND (level != '' OR draw::INTEGER != 0)"):
        return f"the clean images have no level and no draw but 0, got level '{row[0]}', draw {row[1]}"
    counts = "SELECT probe, level, count(DISTINCT draw) AS n FROM answers GROUP BY ALL"
    row = _first(database, f"SELECT probe, min(n), max(n) FROM ({counts}) GROUP BY probe HAVING min(n) != max(n)")
    if not row:
        return None
    return f"the levels of probe '{row[0]}' have {row[1]} to {row[2]} draws: each must have as many"


def _complete(database: "DuckDBPyConnection") -> str | None:
    """Every network must have answered every image of every set."""
    row = _first(
        database,
        "SELECT n.network, i.image, i.probe, i.level, i.draw FROM (SELECT DISTINCT network FROM answers) n "
        "CROSS JOIN (SELECT DISTINCT probe, level, draw, image FROM answers) i ANTI JOIN answers a "
        "ON (a.network, a.probe, a.level, a.draw, a.image) = (n.network, i.probe, i.level, i.draw, i.image) ORDER BY ALL",
    )
    if not row:
        return None
    return f"{ANSWER.format(*row)} is missing (level '{row[3]}', draw {row[4]}): all networks must answer the same images"


def _one_class_each(database: "DuckDBPyConnection") -> str | None:
    """An image has one label, shape and so on in a set, whichever network is asked; in a set all images have one, or none has."""
    for name in CLASSES:
        of_images = f"SELECT probe, level, draw, image, min({name}) AS one, max({name}) AS other, count({name}) < count(*) AS lacking"
        of_images = f"({of_images} FROM answers GROUP BY probe, level, draw, image)"
        if row := _first(database, f"SELECT image, probe, one, other FROM {of_images} WHERE one != other ORDER BY ALL"):
            return f"image '{row[0]}' of set '{row[1]}' has two values of '{name}': '{row[2]}' and '{row[3]}'"
        partly = f"SELECT min(image) FILTER (lacking), probe FROM {of_images} GROUP BY probe, level, draw"
        if row := _first(database, f"{partly} HAVING bool_or(lacking) AND count(one) > 0 ORDER BY ALL"):
            return f"image '{row[0]}' of set '{row[1]}' has no '{name}', others have: give it for all rows of a set or for none"
    return None


def _labelled_alike(database: "DuckDBPyConnection") -> str | None:
    """A probe shows the clean images with the labels that they have there."""
    row = _first(
        database,
        "SELECT image, min(label), max(label) FROM answers JOIN sets USING (probe) WHERE split = 'test' "
        "GROUP BY image HAVING count(DISTINCT label) > 1 ORDER BY image",
    )
    if not row:
        return None
    return f"image '{row[0]}' has label '{row[1]}' in one set and '{row[2]}' in another: its labels are misaligned"


def _measurable(database: "DuckDBPyConnection") -> str | None:
    if _first(database, "SELECT 1 FROM answers WHERE coalesce(label, shape) IS NOT NULL LIMIT 1"):
        return None
    return "without a column 'label' (or 'shape' and 'texture') nothing can be measured"


def _written_alike(database: "DuckDBPyConnection") -> str | None:
    """Decisions and classes must be written alike, else every answer would be wrong."""
    row = _first(database, "SELECT 1 FROM answers WHERE decision IN (SELECT unnest([label, shape, texture, colour]) FROM answers) LIMIT 1")
    if row:
        return None
    examples = _first(
        database, "SELECT decision, coalesce(label, shape) FROM answers WHERE coalesce(label, shape) IS NOT NULL ORDER BY place"
    )
    assert examples
    return f"no decision names a class of the images, such as '{examples[0]}' beside '{examples[1]}': write both alike"


def _first(database: "DuckDBPyConnection", query: str) -> tuple | None:
    return database.execute(query).fetchone()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _cell(name: str) -> str:
    """A column as text; an empty cell is NULL."""
    return f"nullif({_quoted(name)}::VARCHAR, '')"
