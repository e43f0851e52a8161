"""The report of an erasure: what it did to the concept, to what is near it, and what an attacker would need."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluation.reporting.markup import Html, element, fact_list, join, moment, text_table
from evaluation.reporting.page import page, section
from evaluation.reporting.pictures import Picture, png_size

NUMBERS_NOTE = (
    "Before any image: from text embeddings and weights alone. A residual of 0: the concept goes exactly where the "
    "guide goes; 1: it is as it was. What is kept should stay near 0."
)
ATTACK_NOTE = (
    "c' is the embedding that gave the edited model the concept's outputs back before that was erased too. A transform "
    "that can be inverted lets an attacker who may set embeddings freely bring it back exactly; the smaller its "
    "smallest singular value, the larger the embedding this may take. This is no measurement of attacks."
)
SMALLEST, LARGEST = 136, 384
"""Width of an image on the page."""
NEAR_NOTE = "Change of a text's last token in the outputs of all edited matrices, relative to these outputs."


@dataclass(frozen=True)
class Drawn:
    """Images of one prompt, before and after, from equal seeds.

    Args:
        prompt: of all of them.
        before, after: PNG files.
    """

    prompt: str
    before: bytes
    after: bytes


@dataclass(frozen=True)
class ErasureFacts:
    """What the report tells.

    Args:
        model: name.
        concepts, guides: side by side.
        facts: short ones by name: method, constants, hash, time.
        numbers: rows (stream, what, value).
        epochs: rows (stream, epoch, concept, |c'|, |c'| / |c|, smallest singular value).
        near: rows (text, kept or vocabulary, nearest concept, similarity, change).
        files: rows (name, bytes, what it is).
        drawn: images.
        not_drawn: why there are none.
        record: everything as plain values, for the details.
    """

    model: str
    concepts: Sequence[str]
    guides: Sequence[str]
    facts: Mapping[str, str]
    numbers: Sequence[Sequence[str]]
    epochs: Sequence[Sequence[str]]
    near: Sequence[Sequence[str]]
    files: Sequence[Sequence[str]]
    drawn: Sequence[Drawn] = ()
    not_drawn: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)


def build_erasure_report(told: ErasureFacts) -> str:
    """The page as text."""
    pairs = ", ".join(f"{c!r} → {g!r}" for c, g in zip(told.concepts, told.guides, strict=True))
    header = join(
        [
            element("p", "Erasure report", class_="eyebrow"),
            element("h1", ", ".join(told.concepts)),
            element("p", f"erased from {told.model}: {pairs}", class_="when"),
            fact_list(told.facts),
        ]
    )
    parts = [
        section("images", "Before and after", told.not_drawn or "Equal seeds.", _images(told), "Images"),
        section(
            "numbers",
            "The edit in numbers",
            NUMBERS_NOTE,
            text_table(("stream", "what", "value"), told.numbers),
            "Numbers",
        ),
        section(
            "attack",
            "What brings it back",
            ATTACK_NOTE,
            text_table(
                ("stream", "epoch", "concept", "|c'|", "|c'| / |c|", "smallest singular value of T"), told.epochs
            ),
        ),
        section(
            "neighbours",
            "Neighbours",
            NEAR_NOTE,
            text_table(("text", "from", "nearest concept", "similarity", "change"), told.near),
        ),
        section("files", "Files", "", text_table(("file", "bytes", "what it is"), told.files)),
    ]
    shown = [part for part in parts if part]
    footer = element("p", f"Built {moment(time.time())}. This page loads nothing.")
    return page(f"{', '.join(told.concepts)} · erasure report", header, shown, footer, {"charts": [], "replays": []})


def _images(told: ErasureFacts) -> Html:
    if not told.drawn:
        return element("p", "No images.", class_="quiet") if told.not_drawn else Html("")
    return element("div", [_pair(one) for one in told.drawn], class_="pictures")


def _pair(drawn: Drawn) -> Html:
    """Before and after side by side, however many stand in a row."""
    both = [_picture(drawn.before, f"{drawn.prompt!r} before"), _picture(drawn.after, f"{drawn.prompt!r} after")]
    shown = [picture.tag(min(max(picture.width, SMALLEST), LARGEST)) for picture in both if picture]
    caption = element("figcaption", f"{drawn.prompt!r}, before and after")
    return element("figure", element("div", shown, class_="pair"), caption)


def _picture(content: bytes, title: str) -> Picture | None:
    size = png_size(content)
    return Picture(content, *size, title, "") if size else None
