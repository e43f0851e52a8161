"""Pictures of samples that lie in the run folder as PNG files, put into the page as data."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.reporting.folder import Run, read_beside
from evaluation.reporting.markup import Html, element, join
from evaluation.reporting.values import items, mapping

KINDS = ("grid", "neighbours", "speech")
"""Items of a samples file that are pictures, or sounds with one; all others are texts."""

MAX_BYTES = 4_000_000
MAX_SIDE = 10_000
"""Pixels; a small file may claim to be huge, and a browser would reserve the memory."""
MAX_TITLE = 200
MAX_SHOWN = 4
"""Pictures of one kind in one samples file."""

LARGE = 720
"""Width in pixels up to which a picture is enlarged by a whole factor."""
SMALL = 200
"""Width of a picture in the row of earlier ones."""
CRISP = 480
"""Pictures of fewer pixels show their pixels, instead of a blur, where a browser enlarges them."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class Picture:
    """A PNG file with what is said of it.

    Args:
        content: of the file.
        width, height: in pixels.
        title: what it shows.
        step: training steps of the model that drew it, as written.
    """

    content: bytes
    width: int
    height: int
    title: str
    step: str

    def tag(self, width: int) -> Html:
        """<img> that is to be `width` pixels wide where there is room."""
        return element(
            "img",
            src=f"data:image/png;base64,{base64.b64encode(self.content).decode()}",
            alt=f"{self.title} after step {self.step}" if self.step else self.title,
            width=width,
            height=max(1, round(self.height * width / self.width)),
            class_="crisp" if self.width < min(CRISP, width + 1) else None,
        )


def pictures(run: Run, content: Mapping[str, Any], kind: str) -> list[Picture]:
    """The pictures of one kind that a samples file names and that are there and whole."""
    found = [mapping(item) for item in items(content.get("items"))]
    titles = ((item, title_of(item, "Samples")) for item in found if item.get("kind") == kind)
    read = (read_picture(run, item.get("file"), title, step_of(content)) for item, title in titles)
    return [picture for picture in read if picture][:MAX_SHOWN]


def title_of(item: Mapping[str, Any], otherwise: str) -> str:
    """What an item shows, cut to a length that a page can show."""
    title = item.get("title")
    return title[:MAX_TITLE] if isinstance(title, str) else otherwise


def step_of(content: Mapping[str, Any]) -> str:
    """Training steps that a samples file was drawn after, as written; "" where it does not say."""
    step = content.get("step")
    return f"{step:,}" if isinstance(step, int) and not isinstance(step, bool) else ""


def read_picture(run: Run, name: Any, title: str, step: str) -> Picture | None:
    """A picture that lies beside the samples files; None where it is not there or not whole."""
    content = read_beside(run.path / "samples", name, MAX_BYTES)
    size = png_size(content) if content is not None else None
    return Picture(content, *size, title, step) if content is not None and size else None


def png_size(content: bytes) -> tuple[int, int] | None:
    """(width, height) of a PNG file; None for anything else, and for one that was not written to its end."""
    if not content.startswith(_SIGNATURE) or content[12:16] != b"IHDR" or not content.endswith(_END):
        return None
    width, height = struct.unpack(">II", content[16:24])
    return (width, height) if 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE else None


def drawn(run: Run) -> list[tuple[Mapping[str, Any], list[Picture]]]:
    """(content, grids) of each samples file that has a grid of samples to show, oldest first."""
    found = ((content, pictures(run, content, "grid")) for content in run.samples)
    return [(content, shown) for content, shown in found if shown]


def growth(files: Sequence[list[Picture]]) -> Html:
    """The newest grids large, and one of each earlier file in a row, from the first on."""
    if not files:
        return Html("")
    row = [element("figure", grid.tag(SMALL), element("figcaption", _step(grid))) for grid, *_ in files[:-1]]
    earlier = element("div", element("h3", "Earlier in the training"), element("div", row, class_="growth"))
    return join([element("div", map(_large, files[-1]), class_="pictures"), earlier if row else None])


def _step(picture: Picture) -> str:
    return f"step {picture.step}" if picture.step else ""


def neighbours(run: Run) -> Html:
    """Samples above their nearest training images, from the newest file that has them."""
    found = next((shown for c in reversed(run.samples) if (shown := pictures(run, c, "neighbours"))), [])
    return element("div", map(_large, found), class_="pictures") if found else Html("")


def _large(picture: Picture) -> Html:
    factor = max(1, LARGE // picture.width)
    return element("figure", picture.tag(factor * picture.width), element("figcaption", picture.title))


def picture_row(name: str, folder: Path, captions: Mapping[str, str], width: int, remark: str = "") -> Html:
    """PNG files of a folder side by side under a heading, each with its caption; what is no picture is left out."""
    shown: list[Html] = []
    for file, said in captions.items():
        content = (folder / file).read_bytes()
        size = png_size(content)
        if size is not None:
            picture = Picture(content, *size, f"{name}: {said}", "").tag(width)
            shown.append(element("figure", picture, element("figcaption", said)))
    told = element("p", remark, class_="note") if remark else Html("")
    return element("div", element("h3", name), told, element("div", shown, class_="row"), class_="strip")
