"""The report of an enhancement: noisy and enhanced sounds to listen to, every file's cost, and what failed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evaluation.reporting.markup import element, fact_list, join, moment, text_table
from evaluation.reporting.page import page, section
from evaluation.reporting.pictures import Picture, png_size
from evaluation.reporting.sounds import ENHANCED, MAX_PAGE, NOISY, Clip, Room, Utterance, whole_wave

STYLES = ("sounds.css",)
LISTEN_NOTE = "Both spectrograms of a file share a scale of 80 dB: the brighter, the louder. Players share one, too."
MAX_ROWS = 200
"""Files in the table; the record beside the page has all."""


@dataclass(frozen=True)
class Heard:
    """One file, or a part of it.

    Args:
        title: its name, and which part.
        noisy, enhanced: wav files.
        picture: PNG file with the spectrograms of both, in this order.
    """

    title: str
    noisy: bytes
    enhanced: bytes
    picture: bytes


@dataclass(frozen=True)
class EnhancementFacts:
    """What the report tells.

    Args:
        model: what it is, in a few words.
        facts: short ones by name: sampler, rate, speed.
        heard: some of the files.
        files: rows (file, seconds, network calls, real time factor, note) of all that are there.
        failed: rows (file, reason).
        record: name of the file with all lines.
    """

    model: str
    facts: Mapping[str, str]
    heard: Sequence[Heard]
    files: Sequence[Sequence[str]]
    failed: Sequence[Sequence[str]]
    record: str


def build_enhancement_report(told: EnhancementFacts) -> str:
    """The page as text."""
    title = f"{len(told.files):,} enhanced file{'' if len(told.files) == 1 else 's'}"
    header = join(
        [
            element("p", "Enhancement report", class_="eyebrow"),
            element("h1", title),
            element("p", f"by {told.model}", class_="when"),
            fact_list(told.facts),
        ]
    )
    utterances = [one.shown() for one in _utterances(told.heard)]
    listen = element("div", utterances, class_="utterances") if utterances else join([])
    more = len(told.files) - MAX_ROWS
    note = f"The first {MAX_ROWS} of {len(told.files):,}; {told.record} has all." if more > 0 else ""
    columns = ("file", "sound", "network calls", "real time factor", "note")
    parts = [
        section("listen", "Listen", LISTEN_NOTE, listen),
        section("failed", "Failed", "These have no result.", text_table(("file", "reason"), told.failed[:MAX_ROWS])),
        section("files", "Files", note, text_table(columns, told.files[:MAX_ROWS])),
    ]
    footer = element("p", f"Built {moment(time.time())}. This page loads nothing.")
    shown = [part for part in parts if part]
    return page(f"{title} · enhancement report", header, shown, footer, {"charts": [], "replays": []}, STYLES, True)


def _utterances(heard: Sequence[Heard]) -> Iterator[Utterance]:
    room = Room(MAX_PAGE)
    for one in heard:
        clips = [
            Clip(name, one.title, "", content, sound, [])
            for name, content in ((NOISY, one.noisy), (ENHANCED, one.enhanced))
            if (sound := whole_wave(content)) and room.takes(content)
        ]
        size = png_size(one.picture)
        about = f"Spectrograms of {one.title}: {NOISY}, {ENHANCED}, from top to bottom"
        picture = Picture(one.picture, *size, about, "") if size and room.takes(one.picture) else None
        if len(clips) == 2:
            yield Utterance(one.title, f"{NOISY}, {ENHANCED}", clips, picture)
