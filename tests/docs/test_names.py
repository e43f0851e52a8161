"""Names and links of the pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from generative.config import known_keys
from launch.campaign.schema import CampaignConfig
from launch.schema import KINDS
from tests.support.documents import PAGES, ROOMS, ROOT, anchors, has, keys, links, module_named, names

METHODS = sorted((ROOT / "docs" / "methods").glob("*.md"))
LONGEST = 115
"""Lines of a method's page: more is no page to be read before an afternoon's work."""


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [*PAGES, *ROOMS], ids=_id)
def test_every_module_and_name_exists(page: Path) -> None:
    missing = [f"{module}:{name}" for module, name in names(page) if not has(module_named(module), name)]
    assert not missing


@pytest.mark.parametrize("page", [*PAGES, *ROOMS], ids=_id)
def test_every_link_leads_somewhere(page: Path) -> None:
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_every_room_of_a_method_leads_to_a_page() -> None:
    named = {(room.parent / path).resolve() for room in ROOMS for path, _ in links(room)}
    assert set(METHODS) <= named
    for room in ROOMS:
        assert any((room.parent / path).resolve() in METHODS for path, _ in links(room)), room


@pytest.mark.parametrize("page", METHODS, ids=_id)
def test_a_page_has_its_parts(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for head in ("## From training to report", "## Where things are", "## What differs", "## Honest limits"):
        assert f"\n{head}" in text, head
    assert len(names(page)) >= 10
    assert len(text.splitlines()) <= LONGEST


@pytest.fixture(scope="module")
def known() -> set[str]:
    """All keys that a configuration of any kind may have, and the sections above them."""
    found = {key for kind in (*KINDS, CampaignConfig) for key in known_keys(kind)}
    return found | {".".join(key.split(".")[:n]) for key in found for n in range(1, key.count(".") + 1)}


@pytest.mark.parametrize("page", [*PAGES, *ROOMS], ids=_id)
def test_every_key_that_is_named_exists(page: Path, known: set[str]) -> None:
    assert [key for key in keys(page) if key not in known] == []


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_every_test_that_is_named_exists(page: Path) -> None:
    for path, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", page.read_text(encoding="utf-8")):
        assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"


def test_what_does_not_exist_is_found() -> None:
    assert has(module_named("edm.loss"), "denoising_loss")
    assert not has(module_named("edm.loss"), "no_such_loss")
    with pytest.raises(ModuleNotFoundError):
        module_named("edm.no_such_module")
