"""What a report of this software that is no run's says of itself: restorations, erasures, enhancements, campaigns."""

from __future__ import annotations

import base64
import binascii
from html.parser import HTMLParser
from pathlib import Path

from evaluation.reporting.card import MAX_BYTES, Card, framed
from evaluation.reporting.pictures import Picture, png_size
from evaluation.reporting.sounds import Room

MAX_PAGE = 30_000_000
"""Bytes of a report that is read."""
MAX_PICTURES = 6
MAX_FACTS = 6
MAX_TEXT = 160
"""Characters of each text that is taken over."""

_PNG = "data:image/png;base64,"


def report_card(path: Path, room: Room) -> Card | None:
    """The card of a report page: its heading, facts and first pictures; None for a page that is none of ours.

    Args:
        path: of the page.
        room: bytes that pictures may still take.
    """
    try:
        if path.stat().st_size > MAX_PAGE:
            return None
        read = _Reader(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    if not read.kind or not read.title:
        return None
    facts = dict(zip(read.terms, read.values, strict=False))
    shown = framed(read.pictures, Room(MAX_BYTES, room))
    return Card(read.title, read.kind, read.about, facts=facts, shown=shown, report=path)


class _Reader(HTMLParser):
    """Collects the texts of the header and the first pictures that a page holds as data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.kind = self.title = self.about = ""
        self.terms: list[str] = []
        self.values: list[str] = []
        self.pictures: list[Picture] = []
        self._into = ""
        self._in_header = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "img":
            self._picture(given)
            return
        self._in_header |= tag == "header"
        if not self._in_header:
            return
        named = {("p", "eyebrow"): "kind", ("h1", None): "title", ("p", "when"): "about"}
        self._into = named.get((tag, given.get("class")), tag if tag in ("dt", "dd") else self._into)
        if tag == "dt" and len(self.terms) < MAX_FACTS:
            self.terms.append("")
        if tag == "dd" and len(self.values) < len(self.terms):
            self.values.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("p", "h1", "dt", "dd", "header"):
            self._into = ""
        self._in_header &= tag != "header"

    def handle_data(self, data: str) -> None:
        if self._into in ("kind", "title", "about"):
            setattr(self, self._into, f"{getattr(self, self._into)}{data}"[:MAX_TEXT])
        elif self._into in ("dt", "dd"):
            texts = self.terms if self._into == "dt" else self.values
            if texts:
                texts[-1] = f"{texts[-1]}{data}"[:MAX_TEXT]

    def _picture(self, given: dict[str, str | None]) -> None:
        source = given.get("src") or ""
        if len(self.pictures) >= MAX_PICTURES or not source.startswith(_PNG):
            return
        try:
            content = base64.b64decode(source.removeprefix(_PNG), validate=True)
        except binascii.Error:
            return
        size = png_size(content)
        if size is not None:
            self.pictures.append(Picture(content, *size, (given.get("alt") or "picture")[:MAX_TEXT], ""))
