"""Samples and infillings: as text, and as steps that the page's player replays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.reporting.folder import Run
from evaluation.reporting.markup import Html, element, join, token_text
from evaluation.reporting.pictures import KINDS
from evaluation.reporting.values import items, mapping

MASK = "▁"
MAX_ITEMS = 8
MAX_TOKENS = 4096
MAX_STATES = 512

Item = Mapping[str, Any]


def text_of(item: Item, name: str) -> str:
    """A text of an item, '' where it is none, cut to a length that a page can show."""
    value = item.get(name)
    return value[:MAX_TOKENS] if isinstance(value, str) else ""


def sample_items(run: Run) -> list[Item]:
    """Texts of the newest sample file."""
    return _texts(run.samples[-1])[:MAX_ITEMS] if run.samples else []


def _texts(content: Mapping[str, Any]) -> list[Item]:
    found = (mapping(i) for i in items(content.get("items")))
    return [item for item in found if item and item.get("kind") not in KINDS]


def _positions(value: Any, length: int) -> set[int]:
    return {p for p in items(value) if isinstance(p, int) and 0 <= p < length}


def replay(item: Item) -> dict[str, Any] | None:
    """What the player needs: the start, and the cells that change in each step; None without steps.

    {"start": [[char, masked], ...], "steps": [{"call", "changes": [[position, char, masked], ...]}], "truth", "final"}
    """
    states = [mapping(s) for s in items(item.get("states")) if text_of(mapping(s), "text")]
    states = _thinned(states)
    if not states:
        return None
    length = len(text_of(states[-1], "text"))
    cells = _start(item, states[0], length)
    start, steps = list(cells), []
    for index, state in enumerate(states):
        now = _cells(text_of(state, "text"), _positions(state.get("masked"), length), length)
        changes = [[p, *now[p]] for p in range(length) if now[p] != cells[p]]
        call = state.get("call")
        steps.append({"call": call if isinstance(call, int) else index + 1, "changes": changes})
        cells = now
    truth = text_of(item, "truth_cells") or text_of(item, "truth")
    return {"start": start, "steps": steps, "truth": truth, "kind": str(item.get("kind"))}


def _thinned(states: list[Item]) -> list[Item]:
    """At most MAX_STATES of them, the last included; changes of those left out fall to the next one."""
    stride = -(-len(states) // MAX_STATES) if states else 1
    return states[::-1][::stride][::-1]


def _cells(text: str, masked: set[int], length: int) -> list[tuple[str, int]]:
    text = text.ljust(length)[:length]
    return [(MASK, 1) if p in masked else (text[p], 0) for p in range(length)]


def _start(item: Item, first: Item, length: int) -> list[tuple[str, int]]:
    """The canvas before the first step: the prompt, or what the first step left with its new tokens taken back."""
    prompt, seen = text_of(item, "prompt"), text_of(first, "text")
    # Where tokens are of several letters, the prompt is text, not a cell for each token.
    if len(prompt) == length and all(char in (MASK, cell) for char, cell in zip(prompt, seen, strict=False)):
        return _cells(prompt, {p for p, char in enumerate(prompt) if char == MASK}, length)
    hidden = _positions(first.get("masked"), length) | _positions(first.get("new"), length)
    return _cells(seen, hidden, length)


def item_card(item: Item) -> Html:
    """Prompt, result and original as plain text, for a page without a script and for print."""
    parts = [
        ("Given", text_of(item, "prompt")),
        ("Result", text_of(item, "text")),
        ("Original", text_of(item, "truth")),
    ]
    shown = [
        element("div", element("h4", name), element("p", token_text(text), class_="tokens"))
        for name, text in parts
        if text.strip(MASK)
    ]
    return element("div", shown, class_="card")


def players(run: Run) -> tuple[Html, list[dict[str, Any]]]:
    """The place of the player with its fallback, and the data that it replays; infillings first."""
    ordered = sorted(sample_items(run), key=lambda i: i.get("kind") != "infill")
    pairs = [(item, data) for item in ordered if (data := replay(item))]
    if not pairs:
        return Html(""), []
    names = [_name(data, index) for index, (_, data) in enumerate(pairs)]
    fallback = element("div", item_card(pairs[0][0]), class_="fallback")
    return (
        element("div", fallback, class_="player", id="player"),
        [{**data, "name": name} for (_, data), name in zip(pairs, names, strict=True)],
    )


def _name(data: Mapping[str, Any], index: int) -> str:
    kind = "Infilling" if data["kind"] == "infill" else "Sample"
    return f"{kind} {index + 1}"


def samples(run: Run) -> Html:
    """Samples of the newest file, and one of each earlier file to see how they grew."""
    drawn = [i for i in sample_items(run) if i.get("kind") != "infill"] or sample_items(run)
    newest = element("div", [_sample(item, "") for item in drawn], class_="samples")
    earlier = [_sample(*pair) for pair in map(_first_of, run.samples[:-1]) if pair]
    before = element(
        "details",
        element("summary", "Earlier in the training"),
        element("div", earlier, class_="samples"),
    )
    return join([newest if drawn else None, before if earlier else None])


def _first_of(content: Mapping[str, Any]) -> tuple[Item, str] | None:
    found = _texts(content)
    drawn = [i for i in found if i.get("kind") != "infill"] or found
    return (drawn[0], f"step {content.get('step')}") if drawn else None


def _sample(item: Item, title: str) -> Html:
    text = element("p", token_text(text_of(item, "text")), class_="tokens")
    return element("figure", text, element("figcaption", title) if title else None, class_="sample")
