"""Facts and tables of reports that have no chart."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.reporting.markup import Html, element


def fact(name: str, value: str) -> Html:
    """A short fact in a <dl> of facts."""
    return element("div", element("dt", name), element("dd", value))


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """Rows of text, the first cell of each its head; nothing where there are none."""
    if not rows:
        return Html("")
    head = element("thead", element("tr", [element("th", name, scope="col") for name in header]))
    body = [
        element("tr", element("th", row[0], scope="row"), [element("td", cell) for cell in row[1:]]) for row in rows
    ]
    return element("div", element("table", head, element("tbody", body)), class_="scroll", tabindex="0", role="region")
