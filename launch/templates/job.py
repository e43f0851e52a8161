"""One run as a job: its command, its folder, and its names in the systems that run it."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from launch.cluster_schema import Cluster
from launch.sections import LaunchConfig

HEAD, TAIL = 32, 6
"""Characters of the run's name, and of the hash of its folder, in the identity of a job."""


@dataclass(frozen=True)
class Job:
    """A run that is sent somewhere.

    Args:
        run: name of the run.
        folder: run folder, absolute, as the nodes see it.
        config: CONFIG of `generative train`, as the nodes find it.
        overrides: `a.b=c` of `generative train`.
        launch: placement of the workers.
        text: YAML that must travel with the job, since the nodes do not see CONFIG; None: they do.
    """

    run: str
    folder: str
    config: str
    overrides: tuple[str, ...]
    launch: LaunchConfig
    text: str | None = None

    @property
    def id(self) -> str:
        """Identity that follows from the name and the folder: small letters, digits and dashes, at most 39."""
        words = re.sub(r"[^a-z0-9]+", "-", self.run.lower()).strip("-").split("-")
        while len(words) > 1 and len("-".join(words)) > HEAD:
            words = words[1:]
        return f"{'-'.join(words)[-HEAD:] or 'run'}-{hashlib.sha256(self.folder.encode()).hexdigest()[:TAIL]}"

    def train(self, cluster: Cluster, *extra: str) -> list[str]:
        """Words of the command that trains; `extra` overrides win."""
        words = [*shlex.split(cluster.command), "train", self.config, *self.overrides]
        return [*words, f"run.dir={self.folder}", *extra]


def exports(environment: Mapping[str, str]) -> list[str]:
    """Shell lines that set environment variables."""
    return [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]


def shell(words: Sequence[str]) -> str:
    """A command line that a POSIX shell splits into exactly these words."""
    return shlex.join(words)
