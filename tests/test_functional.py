"""The pure functions under their stable names."""

import pytest

from crossdistill import functional
from crossdistill.core import registry


@pytest.mark.parametrize("name", registry.names("metric"))
def test_every_metric_stands_there_under_its_own_name(name):
    assert name in functional.__all__
    assert getattr(functional, name) is registry.get("metric", name).function


def test_all_names_exist_and_are_listed_once_in_order():
    assert functional.__all__ == sorted(set(functional.__all__))
    assert all(callable(getattr(functional, name)) for name in functional.__all__)
