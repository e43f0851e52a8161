"""Numbers as people read them."""

from __future__ import annotations


def short(value: float, gap: str = "") -> str:
    """Three significant digits with a suffix: 41200 -> 41.2k, 1.21e6 -> 1.21M; `gap` stands before the suffix."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * limit:
            return f"{value / limit:.3g}{gap}{suffix}"
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"


def duration(seconds: float) -> str:
    """m:ss, then h:mm:ss, then hours and days: 42 -> 0:42, 97200 -> 27 h."""
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    if whole < 36_000:
        return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    hours = seconds / 3600
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.1f} d"


def ago(seconds: float) -> str:
    """How long something is past: 40 s, 12 min, 5 h, 4.0 d."""
    if seconds < 5400:
        return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 259_200 else f"{seconds / 86_400:.1f} d"


def gigabytes(count: float) -> str:
    """Bytes as GB without the unit: 4.2e8 -> 0.42."""
    return f"{count / 1e9:.2g}" if count < 1e10 else f"{count / 1e9:.1f}"


def speed(status: dict[str, object]) -> str:
    """Speed in status.json: tokens where samples have them, samples otherwise; empty where unknown."""
    for key, unit in (("tokens_per_second", "tok/s"), ("samples_per_second", "samples/s")):
        value = status.get(key)
        if isinstance(value, int | float):
            return f"{short(value)} {unit}"
    return ""
