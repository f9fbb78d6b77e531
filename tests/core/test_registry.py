"""Plug-ins: what their source hash covers."""

from crossdistill.core import registry
from crossdistill.core.registry import _syntax_trees


def test_the_source_hash_covers_the_helpers_beside_a_plug_in_and_theirs_and_nothing_else() -> None:
    covered = set(_syntax_trees("crossdistill.methods.capd"))
    assert {"crossdistill.methods.capd", "crossdistill.methods._capd_terms", "crossdistill.methods._capd_modules"} <= covered
    assert all(name == "crossdistill.methods.capd" or name.startswith("crossdistill.methods._") for name in covered)


def test_every_method_has_a_source_hash_of_its_own() -> None:
    hashes = [registry.get("method", name).source_hash for name in registry.names("method")]
    assert len(set(hashes)) == len(hashes)
