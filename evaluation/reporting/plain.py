"""Facts and tables whose cells are texts already, for pages about one piece of work instead of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.reporting.markup import Html, element


def fact_list(facts: Mapping[str, str]) -> Html:
    """Terms with their values in a row."""
    return element("dl", [element("div", element("dt", k), element("dd", v)) for k, v in facts.items()], class_="facts")


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """A table that scrolls in its place; the first cell of a row is its name. Nothing without rows."""
    if not rows:
        return Html("")
    head = element("thead", element("tr", [element("th", name, scope="col") for name in header]))
    body = [
        element("tr", element("th", row[0], scope="row"), [element("td", cell) for cell in row[1:]]) for row in rows
    ]
    return element("div", element("table", head, element("tbody", body)), class_="scroll", tabindex="0", role="region")
