"""HTML that cannot be broken by what it shows: everything is escaped unless it was made here."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from evaluation.reporting.values import number


class Html(str):
    """Text that is markup already."""


Child = str | None | Iterable["Child"]

_VOID = {"circle", "line"}
_VOID_HTML = {"br", "meta", "img"}
_NEWLINES = "↵⏎\n"


def element(tag: str, *children: Child, **attributes: str | bool | int | None) -> Html:
    """`<tag attributes>children</tag>`; plain strings are escaped, None is left out.

    Attribute names: a trailing underscore is dropped and others become hyphens (class_, data_chart); True gives an
    attribute without a value, None and False none at all.
    """
    written = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID_HTML:
        return Html(f"<{tag}{written}>")
    if tag in _VOID:
        return Html(f"<{tag}{written}/>")
    return Html(f"<{tag}{written}>{join(children)}</{tag}>")


def _attribute(name: str, value: str | bool | int | None) -> str:
    if value is None or value is False:
        return ""
    label = name.rstrip("_").replace("_", "-")
    return f" {label}" if value is True else f' {label}="{html.escape(str(value))}"'


def join(children: Child) -> Html:
    """Children one after the other, escaped where they are plain strings."""
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, str):
        return Html(html.escape(children))
    return Html("".join(join(child) for child in children))


def embedded_json(value: Any) -> Html:
    """JSON for a script element: no character that could end it or start a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Html(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def token_text(text: str) -> Html:
    """Text in display form; the visible sign of a new line is followed by one, masks are drawn as blocks."""
    parts: list[Html] = []
    for char in text:
        if char == "▁":
            parts.append(element("span", " ", class_="mask"))
        elif char in _NEWLINES:
            parts += [element("span", "↵", class_="sign"), element("br")]
        else:
            parts.append(join(char))
    return join(parts)


LONG = 72
"""Letters of a fact that does not stand beside others."""
LONG_WORD = 13
"""Letters of a word that would be broken in one column."""


def fact(name: str, value: str) -> Html:
    """One entry of a list of facts (`dl`); long ones take a whole line, those with long words two columns."""
    longest = max(map(len, value.split()), default=0)
    class_ = "wide" if len(value) > LONG else "broad" if longest > LONG_WORD else None
    return element("div", element("dt", name), element("dd", value), class_=class_)


def fact_list(facts: Mapping[str, str]) -> Html:
    """Terms with their values in a row."""
    return element("dl", [fact(name, value) for name, value in facts.items()], class_="facts")


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """A table of plain text, the first cell of each row its name; nothing where there are no rows."""
    if not rows:
        return Html("")
    head = element("thead", element("tr", [element("th", name, scope="col") for name in header]))
    body = [
        element("tr", element("th", row[0], scope="row"), [element("td", cell) for cell in row[1:]]) for row in rows
    ]
    return element("div", element("table", head, element("tbody", body)), class_="scroll", tabindex="0", role="region")


def moment(timestamp: Any) -> str:
    """'2026-02-03 14:05:09 UTC' for seconds since 1970, '' for what is no time."""
    try:
        return datetime.fromtimestamp(number(timestamp), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return ""
