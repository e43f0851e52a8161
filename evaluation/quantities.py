"""Numbers as people read them, on a terminal and in a report. Imports nothing, so that every command may use it."""

from __future__ import annotations


def compact(value: float, gap: str = "") -> str:
    """'41.2k', '1.21M', '3.4e-05': three significant digits; `gap` stands before the suffix."""
    for scale, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * scale:
            return f"{value / scale:.3g}{gap}{suffix}" if abs(value) < 999.5 * scale else f"{value / scale:.0f}{suffix}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """A length of time in words: '48 s', '1 min 12 s', '3 h 05 min', '2 d 4 h'."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.2g} s" if 0 < seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def clock(seconds: float) -> str:
    """Time left, as short as a column needs it: 0:42, 1:23:45, then 27 h, then 4.0 d."""
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    if whole < 36_000:
        return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    hours = seconds / 3600
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.1f} d"
