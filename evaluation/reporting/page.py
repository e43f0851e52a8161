"""A self-contained page: style, script and data are in it, it loads nothing, and only our own scripts may run.

The content security policy allows the style and the scripts by their hash, so that no text that is shown, however
hostile, can do anything.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from evaluation.reporting.markup import Html, element, embedded_json, join
from generative.errors import RunFolderError

STYLES = ("base.css", "chart.css", "content.css")
SCRIPTS = ("scale.js", "chart.js", "player.js", "page.js")

Section = tuple[str, str, Html]
"""(anchor, name in the navigation, markup)."""


def section(name: str, title: str, note: str, content: Html, short: str = "") -> Section | None:
    """A section, or None where there is nothing to show."""
    if not content:
        return None
    head = [element("h2", title, id=f"{name}-title"), element("p", note, class_="note") if note else None]
    return name, short or title, element("section", head, content, id=name, aria_labelledby=f"{name}-title")


def page(
    title: str,
    header: Html,
    sections: Sequence[Section],
    footer: Html,
    data: Any,
    styles: Sequence[str] = (),
    sounds: bool = False,
) -> str:
    """The page as text.

    Args:
        title: of the window.
        header: above the sections.
        sections: in their order.
        footer: below them.
        data: for the scripts: {"charts": [...], "replays": [...]}.
        styles: further style sheets.
        sounds: whether the page holds some.
    """
    style, guard, script = _read(*STYLES, *styles), _read("guard.js"), _read(*SCRIPTS)
    return Template(_read("report.html")).substitute(
        policy=_policy(style, guard, script, sounds=sounds),
        title=join(title),
        style=style,
        guard=guard,
        script=script,
        navigation=join([element("a", name, href=f"#{anchor}") for anchor, name, _ in sections]),
        header=header,
        sections=join([content for _, _, content in sections]),
        footer=footer,
        data=embedded_json(data),
    )


def write_page(path: Path, text: str) -> None:
    """Write a page; the old one is replaced in one move.

    Raises:
        RunFolderError: it cannot be written there.
    """
    aside = path.with_name(f".{path.stem}.{os.getpid()}.html")
    try:
        # A lone surrogate in somebody's text must not cost the whole page.
        aside.write_bytes(text.encode("utf-8", errors="replace"))
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise RunFolderError(
            f"{path}: the page cannot be written: {error.strerror or error}",
            expected="a folder that can be written to, with room for a few megabytes",
            remedy="free some space or correct the permissions, then build the page again",
        ) from error


def _read(*names: str) -> str:
    folder = files("evaluation") / "templates"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def _policy(style: str, *scripts: str, sounds: bool) -> str:
    def allowed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    allowed_scripts = " ".join(map(allowed, scripts))
    policy = f"default-src 'none'; style-src {allowed(style)}; script-src {allowed_scripts}; img-src data:"
    return f"{policy}; media-src data:" if sounds else policy
