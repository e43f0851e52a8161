"""The exceptions that a user can meet.

Each carries three things, printed one a line: what is wrong (with the value seen), what was expected, what to do.
The command line prints them without a traceback (`--debug` shows it) and exits with `exit_code`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Self


class GenerativeError(Exception):
    """A mistake or condition that the user can mend.

    Args:
        problem: what happened, with the value and where it was found (file, key, line).
        expected: what would have been right.
        remedy: what to do now.
    """

    exit_code = 2
    agreed = False
    """Whether every rank ends with this error (or PeerError). Where not, others may be waiting for the rank that met
    it, and only the end of its process frees them."""

    def __init__(self, problem: str, expected: str = "", remedy: str = "") -> None:
        super().__init__(problem, expected, remedy)
        self.problem, self.expected, self.remedy = problem, expected, remedy

    def on_all_ranks(self) -> Self:
        """This error, marked as one that all ranks have agreed to end with."""
        self.agreed = True
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses have constructors of their own; between processes the finished message travels.
        return _rebuilt, (type(self), self.args), self.__dict__

    def __str__(self) -> str:
        lines = [self.problem]
        if self.expected:
            lines.append(f"expected: {self.expected}")
        if self.remedy:
            lines.append(f"to fix: {self.remedy}")
        return "\n".join(lines)


class ConfigError(GenerativeError):
    """A configuration that cannot be used: unknown key, wrong type, impossible combination."""


class DataError(GenerativeError):
    """Missing, empty, damaged or unsuitable data."""


class CheckpointError(GenerativeError):
    """A checkpoint that is missing, damaged, or belongs to another model; or one that could not be written."""

    exit_code = 3


class RunFolderError(GenerativeError):
    """A run folder that cannot be written, is in use by another trainer, or belongs to another configuration."""

    exit_code = 3


class ResourceError(GenerativeError):
    """More workers, memory, disk or devices asked for than there are; a cluster that does not answer."""

    exit_code = 3


class AnomalyError(GenerativeError):
    """A loss or gradient that is not finite, or a spike, under the policy `stop`: the message is the diagnosis."""

    exit_code = 4


class PeerError(GenerativeError):
    """Another rank met an error that it reports itself; this one only ends with it."""

    exit_code = 3
    agreed = True


def _rebuilt(kind: type[GenerativeError], arguments: tuple[str, ...]) -> GenerativeError:
    return kind.__new__(kind, *arguments)


def suggestion(name: str, known: Iterable[str]) -> str:
    """'. Did you mean X?' to end a problem with, or an empty string where no known name is near."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f". Did you mean {matches[0]}?" if matches else ""
