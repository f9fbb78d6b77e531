"""Tables on the terminal."""

from __future__ import annotations

from crossdistill.core.progress import tables


def cell(value: object) -> str:
    """A value as it stands in a table."""
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def print_table(columns: tuple[str, ...], rows: list[list[str]]) -> None:
    """Print rows under their column heads."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False, show_header=any(columns))
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))  # names that differ at their ends are not cut
    tables().print(table)
