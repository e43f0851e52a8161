"""How published repositories and networks inside a source are named: hub:OWNER/NAME, PATH#NETWORK@AVERAGE."""

from __future__ import annotations

HUB = "hub:"


def repository(name: str) -> str:
    """OWNER/NAME of `hub:OWNER/NAME`; any other name as it is, for a bare one may be on the hub too."""
    return name.removeprefix(HUB)


def source_parts(source: str, name: str) -> tuple[str, str, str | None]:
    """Path, network (`name` where none is given) and average of "PATH[#NETWORK[@AVERAGE]]"."""
    path, _, rest = source.partition("#")
    network, _, average = rest.partition("@")
    return path, network or name, average or None
