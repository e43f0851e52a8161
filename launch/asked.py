"""What the command line asks of a run that is there: `a.b=c` for its evaluation or samples, and who computes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from generative.config import Config, Layers, validate
from generative.config_text import parse_override
from generative.errors import ConfigError
from launch.sections import LaunchConfig


class _Launch(Config):
    """The section alone: a run's other settings do not limit how many workers evaluate it."""

    launch: LaunchConfig = LaunchConfig()


def merge_overrides(layers: Layers, overrides: Sequence[str]) -> None:
    """Put `a.b=c` on top."""
    for text in overrides:
        layers.put(*parse_override(text))


def split_overrides(overrides: Sequence[str], sections: Sequence[str]) -> tuple[list[str], list[str]]:
    """(those of the section launch, the others).

    Args:
        overrides: `a.b=c`.
        sections: what may be set besides launch.

    Raises:
        ConfigError: another section is named: it says how the run was trained.
    """
    for text in overrides:
        if not text.startswith(tuple(f"{section}." for section in ("launch", *sections))):
            raise ConfigError(
                f"{text.partition('=')[0]}: cannot be set for a run that is there already",
                f"a key of {', '.join((*sections, 'launch'))}",
                "leave it out, or train another run with it",
            )
    launch = [text for text in overrides if text.startswith("launch.")]
    return launch, [text for text in overrides if text not in launch]


def asked_launch(own: LaunchConfig, overrides: Sequence[str], workers: int | None) -> LaunchConfig | None:
    """How to start workers; None where none are asked for, so that this process does it all.

    Args:
        own: the run's settings: its cluster, cores and GPUs are taken over, its number of workers is not.
        overrides: `launch.a=b`.
        workers: number of workers, in short.
    """
    if not overrides and workers is None:
        return None
    layers = Layers()
    trained = {"workers": 1, "min_workers": None, "nodes": None}
    layers.merge({"launch": own.model_dump(mode="json") | trained}, "config.yaml", {})
    merge_overrides(layers, overrides)
    if workers is not None:
        merge_overrides(layers, [f"launch.workers={workers}"])
    return validate(layers, _Launch).launch


def as_changes(overrides: Sequence[str]) -> dict[str, Any]:
    """`a.b=c` as dotted keys with values."""
    return {".".join(path): value for path, value in map(parse_override, overrides)}


def settings_of(words: Sequence[str] | None) -> dict[str, str]:
    """`--set a=b` as names and texts.

    Raises:
        ConfigError: no such pair.
    """
    pairs = [text.partition("=") for text in words or []]
    wrong = next((key for key, equals, value in pairs if not equals or not value), None)
    if wrong is not None:
        raise ConfigError(f"--set {wrong}", "a=b, such as --set steps=25", "write it so")
    return {key: value for key, _, value in pairs}


def check_sampling(key: str, method: Mapping[str, Any]) -> None:
    """Refuse a key `method.sampling.x` that a section `method` does not have. Raises ConfigError."""
    section, _, last = key.rpartition(".")
    known = method.get("sampling") or {}
    if section == "method.sampling" and last not in known:
        raise ConfigError(
            f"{key}: the method {method['name']!r} has no such setting",
            expected=f"one of {', '.join(known)}" if known else "no settings of sampling: it draws in one way",
            remedy="leave the option out",
        )
