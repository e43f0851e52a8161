"""One self-contained page over many runs: a card for each, complete or not, that leads to its report.

Built from what the runs have written (`evaluation.reporting`), it loads nothing; links are relative to where it lies.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from evaluation.quantities import duration
from evaluation.reporting.card import Card
from evaluation.reporting.markup import Html, element, fact_list, join, moment
from evaluation.reporting.page import page, section, write_page

STYLES = ("sounds.css", "gallery.css")

RUNS_NOTE = "Each figure with its standard error; how all of them were measured is in the report."
OTHER_NOTE = "What commands made with the models above."

MAX_BYTES = 30_000_000
"""Of pictures and sounds in the page; as text they become a third longer."""


def write_gallery(path: Path, runs: Sequence[Card], others: Sequence[Card], place: str) -> None:
    """Write the page.

    Args:
        path: of the page.
        runs: cards of runs, in their order.
        others: cards of other reports.
        place: the folder that was looked through, as it was named.

    Raises:
        RunFolderError: it cannot be written there.
    """
    write_page(path, build_gallery(runs, others, place, path.absolute().parent))


def build_gallery(runs: Sequence[Card], others: Sequence[Card], place: str, here: Path) -> str:
    """The page as text; `here` is the folder that it will lie in."""
    parts = [
        section("runs", "Runs", RUNS_NOTE, _cards(runs, here)),
        section("others", "Reports of other commands", OTHER_NOTE, _cards(others, here), "Other reports"),
    ]
    count = f"{len(runs):,} run{'' if len(runs) == 1 else 's'}"
    header = join([element("p", "Gallery", class_="eyebrow"), element("h1", count), _facts(runs, others, place)])
    footer = element("p", f"Built {moment(time.time())} from {place}. This page loads nothing.")
    shown = [part for part in parts if part]
    sounds = any("<audio" in card.shown for card in runs)
    return page(f"{count} · gallery", header, shown, footer, {"charts": [], "replays": []}, STYLES, sounds=sounds)


def _facts(runs: Sequence[Card], others: Sequence[Card], place: str) -> Html:
    states = ", ".join(f"{count} {state}" for state, count in Counter(card.state for card in runs).items())
    seconds = sum(card.seconds for card in runs)
    facts = {
        "Folder": place,
        "States": states or "no runs",
        "Training time of all": duration(seconds) if seconds else "",
        "Other reports": str(len(others)) if others else "",
    }
    return fact_list({name: text for name, text in facts.items() if text})


def _cards(cards: Sequence[Card], here: Path) -> Html:
    return element("div", [card.markup(_link(card, here)) for card in cards], class_="gallery") if cards else Html("")


def _link(card: Card, here: Path) -> str | None:
    """Where the report lies, seen from the page."""
    if card.report is None:
        return None
    return quote(Path(os.path.relpath(card.report.absolute(), here)).as_posix())
