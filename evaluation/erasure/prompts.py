"""Sets of prompts from CSV files in the layouts of RECE's, UCE's and I2P's repositories."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from generative.errors import DataError

SEEDS = ("evaluation_seed", "sd_seed", "seed")
GUIDANCES = ("evaluation_guidance", "guidance", "sd_guidance_scale")
GROUPS = ("class", "artist", "categories", "category")
STEPS, GUIDANCE = 50, 7.5
"""Of the published protocol: LMS, 50 steps, guidance 7.5 where a file does not say otherwise."""


@dataclass(frozen=True)
class PromptRow:
    """One image to be drawn.

    Args:
        case: case_number, or its place in the file.
        prompt: text.
        seed: of its noise.
        guidance: of it.
        group: class or artist, "" where the file tells none.
    """

    case: int
    prompt: str
    seed: int
    guidance: float = GUIDANCE
    group: str = ""

    def file(self, number: int = 0) -> str:
        """Its image's name in the released layout."""
        return f"{self.case}_{number}.png"


def read_prompts(path: Path) -> list[PromptRow]:
    """The prompts of a file.

    Raises:
        DataError: no such file, no column `prompt`, or a number that is none.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error})", "a CSV file in UTF-8", "correct its path") from error
    if not rows or "prompt" not in rows[0]:
        found = ", ".join(rows[0]) if rows else "no rows"
        raise DataError(f"{path}: {found}", "rows with a column `prompt`", "give a prompt set, such as i2p.csv")
    return [_row(path, number, row) for number, row in enumerate(rows)]


def _row(path: Path, number: int, row: dict[str, str]) -> PromptRow:
    def told(names: Sequence[str], default: str) -> str:
        return next((row[name] for name in names if row.get(name)), default)

    try:
        return PromptRow(
            case=int(told(("case_number",), str(number))),
            prompt=row["prompt"] or "",
            seed=int(float(told(SEEDS, str(number)))),
            guidance=float(told(GUIDANCES, str(GUIDANCE))),
            group=told(GROUPS, ""),
        )
    except ValueError as error:
        raise DataError(
            f"{path}, row {number + 2}: {error}", "numbers for case, seed and guidance", "correct the row"
        ) from error
