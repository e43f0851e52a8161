"""Culprits, counted and named, so that one message tells of all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

NAMED = 5
"""Culprits that an error names."""


@dataclass
class Found:
    """How many, and the names of the first few."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """One more."""
        self.count += 1
        if len(self.names) < NAMED:
            self.names.append(name)

    def __str__(self) -> str:
        return ", ".join(self.names) + (", ..." if self.count > len(self.names) else "")
