"""The report of edits: input, restoration, the inversion's reconstruction, edit, and attention of the changed words."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.reporting.markup import Html, element, fact_list, join, moment, text_table
from evaluation.reporting.page import page, section
from evaluation.reporting.pictures import picture_row
from evaluation.restoration_report import SHOWN, caption, cost_rows

IMAGES_NOTE = (
    "From left to right: what was given, its restoration (of corrupted images), the image that inversion comes back to "
    "under the source's text, the edit, and where the text's changed words acted (white is each map's greatest value)."
)
NUMBERS_NOTE = (
    "PSNR of the reconstruction against the image that was inverted: where it is low, the edit cannot keep what it "
    "is to keep (more --rounds or steps help). Change: root mean square between edit and reconstruction, images in "
    "[-1, 1]."
)
COST_NOTE = (
    "Of one image: rows are evaluations of the network, vjps products with its Jacobian (about two rows each), decoder "
    "and encoder likewise. A step of the edit has three rows, and inversion one for each of its rounds."
)

WIDTH = 160


def build_editing_report(folder: Path, lines: Sequence[Mapping[str, Any]], facts: Mapping[str, str]) -> str:
    """The page as text; `folder`: of the results, `lines`: records of images, `facts`: short ones by name."""
    count = f"{len(lines):,} image{'s' if len(lines) > 1 else ''} edited"
    header = join([element("p", "Editing report", class_="eyebrow"), element("h1", count), fact_list(facts)])
    more = f" The first {SHOWN} of {len(lines):,} are shown." if len(lines) > SHOWN else ""
    figures = [_images(folder, line) for line in lines[:SHOWN]]
    rows = [[str(line["file"]), f"{line['inversion_psnr']:.4g}", f"{line['change']:.3g}"] for line in lines]
    parts = [
        section("images", "Images", IMAGES_NOTE + more, element("div", figures), "Images"),
        section(
            "numbers",
            "Numbers",
            NUMBERS_NOTE,
            text_table(("image", "PSNR of the reconstruction (dB)", "change"), rows),
        ),
        section("cost", "Cost", COST_NOTE, text_table(("what", "by image"), cost_rows(lines, "seconds of an image"))),
    ]
    footer = element("p", f"Built {moment(time.time())}. This page loads nothing.")
    shown = [part for part in parts if part]
    return page(f"{count} · editing report", header, shown, footer, {"charts": [], "replays": []})


def _images(folder: Path, line: Mapping[str, Any]) -> Html:
    name, captions = str(line["file"]), {file: caption(file) for file in line["files"]}
    return picture_row(name, folder / Path(name).with_suffix(""), captions, WIDTH)
