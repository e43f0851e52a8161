"""Names that a configuration may use, mapped to the things they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from generative.errors import ConfigError, suggestion

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A read-only table with a helpful answer for unknown names. Entries are given explicitly at construction."""

    def __init__(self, kind: str, entries: Mapping[str, T]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            raise ConfigError(
                f"unknown {self.kind} {name!r}{suggestion(name, self._entries)}",
                expected=f"one of {', '.join(sorted(self._entries))}",
                remedy=f"use one of the names above for the {self.kind}",
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
