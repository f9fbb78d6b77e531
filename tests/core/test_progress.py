"""How wide tables are printed."""

import pytest

from crossdistill.core.progress import WIDTH, tables


def test_a_table_that_goes_into_a_file_is_not_folded_to_a_terminal_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert tables().width == WIDTH
    monkeypatch.setenv("COLUMNS", "70")
    assert tables().width == 70
