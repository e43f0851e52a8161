"""Sizes and speeds of a run as people read them; plain numbers and times are in `evaluation.quantities`."""

from __future__ import annotations

from evaluation.quantities import compact


def gigabytes(count: float) -> str:
    """Bytes as GB without the unit: 4.2e8 -> 0.42."""
    return f"{count / 1e9:.2g}" if count < 1e10 else f"{count / 1e9:.1f}"


def sizes(*counts: float) -> list[str]:
    """Bytes in GB, or in MB where all are small, without the unit; `unit` says which."""
    return [gigabytes(count * (1 if unit(*counts) == "GB" else 1e3)) for count in counts]


def unit(*counts: float) -> str:
    """GB, or MB where no count reaches 1 GB."""
    return "GB" if max(counts, default=0.0) >= 1e9 else "MB"


def speed(status: dict[str, object]) -> str:
    """Speed in status.json: tokens where samples have them, samples otherwise; empty where unknown."""
    for key, unit in (("tokens_per_second", "tok/s"), ("samples_per_second", "samples/s")):
        value = status.get(key)
        if isinstance(value, int | float):
            return f"{compact(value)} {unit}"
    return ""
