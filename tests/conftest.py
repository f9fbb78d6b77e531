import sys
from collections.abc import Callable

import pytest

from crossdistill.cli import main


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., int]:
    """Run `crossdistill ARGUMENTS` in this process, with one cache for all tests of a worker; returns its exit code."""
    monkeypatch.setenv("CROSSDISTILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["crossdistill", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return run
