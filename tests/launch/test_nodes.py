"""Nodes that cannot take part are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from generative.errors import ResourceError, RunFolderError
from launch.nodes import Report, compare, compared

OWN = {"python": "3.11.7", "torch": "2.13.0", "ray": "2.60.0"}
FOLDER = Path("/shared/run")


def test_nodes_like_the_drivers_are_fit():
    compare({"10.0.0.1": Report(OWN, "x"), "10.0.0.2": Report(dict(OWN, numpy="1"), "x")}, OWN, "x", FOLDER)


@pytest.mark.parametrize(
    ("theirs", "words"),
    [({"torch": "2.12.1"}, "torch 2.12.1 (here 2.13.0)"), ({"ray": None}, "ray none (here 2.60.0)")],
)
def test_other_versions_are_refused_with_the_nodes_name(theirs, words):
    found = {name: version for name, version in (OWN | theirs).items() if version is not None}
    with pytest.raises(ResourceError, match=r"node 10\.0\.0\.2 has other versions") as caught:
        compare({"10.0.0.1": Report(OWN, "x"), "10.0.0.2": Report(found, "x")}, OWN, "x", FOLDER)
    assert words in caught.value.problem


@pytest.mark.parametrize("nonce", [None, "another folder of that name"])
def test_a_node_without_the_run_folder_is_refused(nonce):
    with pytest.raises(RunFolderError, match=r"(?m)/shared/run is not seen by node 10\.0\.0\.2$"):
        compare({"10.0.0.1": Report(OWN, "x"), "10.0.0.2": Report(OWN, nonce)}, OWN, "x", FOLDER)


def test_a_node_without_the_package_of_the_strategy_is_refused():
    assert "deepspeed" not in compared("fsdp")
    own = dict.fromkeys(compared("zero2"), "1.0")
    theirs = {name: version for name, version in own.items() if name != "deepspeed"}
    with pytest.raises(ResourceError, match=r"10\.0\.0\.2 has other versions: deepspeed none \(here 1\.0\)"):
        compare({"10.0.0.1": Report(own, "x"), "10.0.0.2": Report(theirs, "x")}, own, "x", FOLDER)
