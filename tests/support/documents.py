"""What README.md and docs/ say that a test can hold them to: names in the code, commands, blocks, links."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
ROOMS = tuple(sorted((ROOT / "generative" / "methods").glob("*/README.md")))
ABOVE = ("generative.methods.", "generative.", "")
"""What pages leave out in front of a module, `edm.loss` being generative/methods/edm/loss.py."""

_NAME = re.compile(r"`([a-z_0-9]+(?:\.[a-z_0-9]+)+):([A-Za-z_]\w*(?:\.\w+)*)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`(generative [^`]+)`")
_KEY = re.compile(
    r"`((?:train|launch|data|method|evaluate|sample|parallel|track|plan|run)(?:\.[a-z_0-9]+)+)(?:=[^`]*)?`"
)
_LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


@dataclass(frozen=True)
class Told:
    """A command that a page gives.

    Args:
        page: where, from the root.
        words: after `generative`; placeholders as they stand.
        exact: it is no synopsis, with brackets.
        in_text: it stands in a sentence, not in a block of commands.
    """

    page: str
    words: tuple[str, ...]
    exact: bool
    in_text: bool

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def module_named(short: str) -> ModuleType:
    """The module of a page's short name. Raises ModuleNotFoundError."""
    for above in ABOVE:
        try:
            return importlib.import_module(above + short)
        except ModuleNotFoundError as error:
            if error.name is None or not (above + short).startswith(error.name):
                raise
    raise ModuleNotFoundError(f"no module {short} in generative/methods, generative or the root")


def has(owner: Any, path: str) -> bool:
    """Whether a module has this name, fields of data classes and configurations counted in."""
    for part in path.split("."):
        if not hasattr(owner, part):
            return part in getattr(owner, "__annotations__", {}) or part in getattr(owner, "model_fields", {})
        owner = getattr(owner, part)
    return True


def names(page: Path) -> list[tuple[str, str]]:
    """All `module:name` of a page."""
    return _NAME.findall(page.read_text(encoding="utf-8"))


def keys(page: Path) -> list[str]:
    """All keys of configurations that a page names, with or without a value."""
    return [key for key in _KEY.findall(page.read_text(encoding="utf-8")) if not key.endswith(".py")]


def blocks(page: Path, language: str = "") -> list[str]:
    """Fenced blocks of a language, in order."""
    return [body for found, body in _FENCE.findall(page.read_text(encoding="utf-8")) if found == language]


def commands(page: Path) -> Iterator[Told]:
    """All `generative ...` of a page: in blocks, in indented lines, and in running text."""
    text = page.read_text(encoding="utf-8")
    where = str(page.relative_to(ROOT))
    fences = "\n".join(body for language, body in _FENCE.findall(text) if language in ("", "sh", "console"))
    rest = _FENCE.sub("", text)
    indented = "\n".join(line[4:] for line in rest.splitlines() if line.startswith("    "))
    lines = re.sub(r"\\\n\s*", " ", f"{fences}\n{indented}").splitlines()
    for line in lines:
        for piece in re.split(r"&&|;", line.removeprefix("$ ")):
            if piece.strip().startswith("generative "):
                yield _told(where, piece.strip(), in_text=False)
    for span in _SPAN.findall(rest.replace("\\|", "|")):
        yield _told(where, span, in_text=True)


def _told(page: str, text: str, in_text: bool) -> Told:
    exact = not re.search(r"\[[-a-z\[A-Z]|\||\.\.\.", text.partition("#")[0])
    words = shlex.split(text, comments=True)
    return Told(page, tuple(words[1:]), exact, in_text)


def links(page: Path) -> Iterator[tuple[str, str]]:
    """(path, anchor) of links within the repository."""
    for path, anchor in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" not in path:
            yield path, anchor


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
