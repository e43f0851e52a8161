"""A run as one card of a gallery: what it is, how it stands, its chief figures, and one thing to look at or hear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.reporting import figures as fig
from evaluation.reporting import pictures, sounds
from evaluation.reporting.facts import fact_texts, section_of, training_seconds
from evaluation.reporting.folder import Run
from evaluation.reporting.markup import Html, element, fact_list, token_text
from evaluation.reporting.replay import sample_items, text_of
from evaluation.reporting.sections import breakable, state_sign
from evaluation.reporting.sounds import Room

MAX_BYTES = 3_000_000
"""Of pictures and sounds of one card."""
MAX_FIGURES = 4
MAX_TEXT = 600
"""Characters of a text that is shown."""
MAX_PROTOCOL = 160
WIDTH = 320
"""Pixels that a picture is enlarged to, by a whole factor."""

FACTS = ("Folder", "Steps", "Training time", "Time left", "Workers", "Restarts")
"""Of a run's facts, those that a card has."""

PLUS_MINUS = "\u00a0±\u00a0"
"""A value stays on one line with its error; the unit may go to the next."""

NOTHING = Html("")
TOO_LARGE = "Too large for this page; the report has it."


@dataclass(frozen=True)
class Card:
    """What stands on it.

    Args:
        title: name of the configuration, or what a report says of itself.
        kind: the method, or what kind of report it is.
        about: what it is, in a sentence.
        state: of the run; empty for other reports.
        facts: short ones by name.
        figures: rows (name, value with its error and unit, remark).
        protocol: how the first of them was measured.
        shown: a picture, a player or a text.
        seconds: of training.
        report: the page that it leads to; None where there is none yet.
    """

    title: str
    kind: str
    about: str = ""
    state: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    figures: Sequence[tuple[str, str, str]] = ()
    protocol: str = ""
    shown: Html = NOTHING
    seconds: float = 0.0
    report: Path | None = None

    def markup(self, link: str | None) -> Html:
        """The card; `link` leads to its report."""
        title = breakable(self.title)
        rows = [
            element(
                "tr",
                element("th", name, scope="row"),
                element("td", value.replace(" ± ", PLUS_MINUS)),
                element("td", remark),
            )
            for name, value, remark in self.figures
        ]
        return element(
            "article",
            element("p", self.kind, class_="eyebrow"),
            element("h3", element("a", title, href=link) if link else title),
            element("p", state_sign(self.state), class_="when") if self.state else None,
            element("p", self.about, class_="quiet about") if self.about else None,
            self.shown,
            element("table", element("tbody", rows)) if rows else None,
            element("p", self.protocol, class_="quiet") if self.protocol else None,
            fact_list(self.facts) if self.facts else None,
            element("p", element("a", "Report", href=link) if link else "No report yet.", class_="more"),
            class_="card",
        )


def run_card(run: Run, about: str, room: Room, place: str = "") -> Card:
    """The card of a run, complete or not.

    Args:
        run: as read.
        about: what its configuration is for.
        room: bytes that pictures and sounds of the whole page may still take.
        place: the folder as it is told, where the configuration's name does not say it.
    """
    known = chief(run, MAX_FIGURES)
    facts, report = {"Folder": place, **fact_texts(run)}, run.path / "report.html"
    return Card(
        title=run.name,
        kind=str(section_of(run, "method").get("name") or "run").replace("_", " "),
        about=about,
        state=run.state,
        facts={name: facts[name] for name in FACTS if facts.get(name)},
        figures=[(one.label, f"{one.number} {one.unit}".rstrip(), one.remark) for one in known],
        protocol=_protocol(known[0]) if known else "No figure yet: nothing has been measured.",
        shown=_shown(run, Room(MAX_BYTES, room)),
        seconds=training_seconds(run),
        report=report if report.is_file() else None,
    )


def chief(run: Run, limit: int) -> list[fig.Figure]:
    """The headline, then what completes it, or the baselines in its unit, or whatever else was evaluated."""
    head = fig.headline(run)
    if head is None:
        return []
    rest = fig.beside(run) or fig.comparison(run) or fig.figures(run)
    return [head, *(figure for figure in rest if figure.key != head.key)][:limit]


def _protocol(figure: fig.Figure) -> str:
    """How it was measured, in a line."""
    said = figure.estimate.protocol
    cut = f"{said[:MAX_PROTOCOL].rstrip()} …" if len(said) > MAX_PROTOCOL else said
    return " · ".join(filter(None, [cut, f"n = {figure.estimate.n:,}" if figure.estimate.n else ""]))


def _shown(run: Run, room: Room) -> Html:
    """Sounds tell most, then pictures, then texts; nothing where nothing was drawn."""
    heard = sounds.newest(run, room)
    if heard:
        return element("div", heard, class_="shown")
    drawn = pictures.drawn(run)
    if drawn:
        return framed(drawn[-1][1][:1], room)
    texts = [text for item in sample_items(run) if (text := text_of(item, "text"))]
    if texts:
        return element("div", element("p", token_text(texts[0][:MAX_TEXT]), class_="tokens"), class_="shown")
    return NOTHING


def framed(found: Sequence[pictures.Picture], room: Room) -> Html:
    """Pictures beside each other, as far as there is room."""
    fitting = [picture for picture in found if room.takes(picture.content)]
    if not fitting:
        return element("p", TOO_LARGE, class_="quiet") if found else NOTHING
    tags = [picture.tag(max(1, WIDTH // picture.width) * picture.width) for picture in fitting]
    return element("div", tags, class_="shown several" if len(tags) > 1 else "shown")
