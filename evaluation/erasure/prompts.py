"""Sets of prompts from CSV files in the layouts of RECE's, UCE's and I2P's repositories."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from generative.errors import DataError

SEEDS = ("evaluation_seed", "sd_seed", "seed")
GUIDANCES = ("evaluation_guidance", "guidance")
"""Not I2P's sd_guidance_scale, by which its images were once drawn: RECE's evaluation leaves it aside."""
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
    """

    case: int
    prompt: str
    seed: int
    guidance: float = GUIDANCE

    def file(self, number: int = 0) -> str:
        """Its image's name in the released layout."""
        return f"{self.case}_{number}.png"


def read_prompts(path: Path) -> list[PromptRow]:
    """The prompts of a file.

    Raises:
        DataError: no such file, no column `prompt`, or a number that is none.
    """
    rows = _table(path)
    if not rows or "prompt" not in rows[0]:
        found = ", ".join(rows[0]) if rows else "no rows"
        raise DataError(f"{path}: {found}", "rows with a column `prompt`", "give a prompt set, such as i2p.csv")
    return [_row(path, number, row) for number, row in enumerate(rows)]


def described(path: Path, rows: Sequence[PromptRow]) -> str:
    """A set in a protocol: file, number of prompts, guidance."""
    least, most = min(row.guidance for row in rows), max(row.guidance for row in rows)
    guidance = f"{least:g}" if least == most else f"{least:g} to {most:g}"
    return f"{path.name}, one image of each of {len(rows)} prompts, guidance {guidance}"


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """(sensitive, normal) texts of Ring-A-Bell from a CSV file with these columns.

    Raises:
        DataError: no such file, other columns, or no rows.
    """
    rows, names = _table(path), ("sensitive", "normal")
    found = [(row["sensitive"] or "", row["normal"] or "") for row in rows if all(name in row for name in names)]
    if not found or any(not a.strip() or not b.strip() for a, b in found):
        raise DataError(
            f"{path}: {', '.join(rows[0]) if rows else 'no rows'}",
            "rows with the columns `sensitive` and `normal`, both filled",
            "give pairs that differ in the concept alone",
        )
    return found


def _table(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error})", "a CSV file in UTF-8", "correct its path") from error


def _row(path: Path, number: int, row: dict[str, str]) -> PromptRow:
    def told(names: Sequence[str], default: str) -> str:
        return next((row[name] for name in names if row.get(name)), default)

    try:
        return PromptRow(
            case=int(told(("case_number",), str(number))),
            prompt=row["prompt"] or "",
            seed=_seed(told(SEEDS, str(number))),
            guidance=_finite(told(GUIDANCES, str(GUIDANCE))),
        )
    except ValueError as error:
        raise DataError(
            f"{path}, row {number + 2}: {error}", "numbers for case, seed and guidance", "correct the row"
        ) from error


def _seed(text: str) -> int:
    """Also of a column of floats, as pandas writes one with gaps."""
    found = int(text) if text.strip().lstrip("+-").isdigit() else int(_finite(text))
    if not -(2**63) <= found < 2**63:
        raise ValueError(f"the seed {text} has more than 64 bits")
    return found


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(f"{text!r} is no finite number")
    return found
