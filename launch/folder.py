"""The driver's side of a run folder: is it ours to use, what is in it, what is left over from before."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generative.errors import ConfigError, GenerativeError, RunFolderError

if TYPE_CHECKING:
    from generative.config import Layers
    from launch.schema import RunConfig

OPERATIONAL = (
    "name",
    "run.",
    "launch.",
    "parallel.",
    "track.",
    "plan.",
    "evaluate.",
    "sample.",
    "train.checkpoint.",
    "train.validation.",
    "train.loader.",
    "train.anomaly.",
    "train.profile.",
    "train.log_every",
    "train.sample_every",
    "train.threads",
    "train.micro_batch_size",
    "train.activation_checkpointing",
    "train.compile",
    "data.cache",
)
"""Keys that may change between two starts of one run: they say how, where and how closely watched it trains."""

AFTER_TRAINING = ("method.sampling.",)
"""Keys that may change too: they say how the trained model is drawn from. Apart from OPERATIONAL, which names what does
not change a campaign's figures: its results are found again by all other keys."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping of dotted keys."""
    if not isinstance(values, dict) or not values:
        return {prefix: values}
    below = (flatten(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in values.items())
    return {key: value for part in below for key, value in part.items()}


def differences(old: RunConfig, new: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, with both values."""
    was, now = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    keys = [key for key in (*was, *(k for k in now if k not in was)) if was.get(key) != now.get(key)]
    return {key: (was.get(key), now.get(key)) for key in keys}


def stored_config(folder: Path) -> RunConfig | None:
    """The configuration that a run folder belongs to; None for a new folder, or one where training never began.

    Raises:
        RunFolderError: its config.yaml cannot be read.
    """
    path = folder / "config.yaml"
    return validate(read_layers(path), path) if path.exists() and _has_begun(folder) else None


def read_layers(path: Path) -> Layers:
    """The config.yaml of a run folder, unchecked.

    Raises:
        RunFolderError: damaged.
    """
    from generative.config import Layers
    from generative.config_text import read_file

    layers = Layers()
    try:
        values, lines = read_file(path)
    except ConfigError as error:
        raise _unreadable(path, error) from error
    layers.merge(values, str(path), lines)
    return layers


def validate(layers: Layers, path: Path) -> RunConfig:
    """What `read_layers` read as a configuration.

    Raises:
        RunFolderError: this version does not know it.
    """
    from generative import config
    from launch.schema import schema_for

    try:
        return config.validate(layers, schema_for(layers.values))
    except ConfigError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: ConfigError) -> RunFolderError:
    first = error.problem.splitlines()[0].removeprefix(f"{path}: ")
    return RunFolderError(
        f"{path}: cannot be read by this version: {first}",
        "the configuration of a run as `generative train` wrote it",
        "restore the file, go on with the version that wrote it (environment.json), or choose another run.dir",
    )


def _has_begun(folder: Path) -> bool:
    """Whether there is any training in the folder that another configuration would spoil."""
    metrics = folder / "metrics.jsonl"
    return (metrics.exists() and metrics.stat().st_size > 0) or any(folder.glob("checkpoints/step_*"))


def check_same_run(folder: Path, shown: str, config: RunConfig) -> list[str]:
    """Make sure that the folder's run is this one; returns the changes that do not matter to the numbers.

    Raises:
        RunFolderError: the folder holds another run; every differing key is named with both values.
    """
    old = stored_config(folder)
    changed = differences(old, config) if old else {}
    serious = {key: pair for key, pair in changed.items() if not key.startswith(OPERATIONAL + AFTER_TRAINING)}
    if serious:
        listed = ", ".join(f"{key} ({_show(was)} there, {_show(now)} now)" for key, (was, now) in serious.items())
        raise RunFolderError(
            f"{shown} holds a run with another configuration: {listed}",
            "the same configuration as in its config.yaml",
            "give run.dir=ANOTHER_FOLDER for the new run, or take these changes back to go on with the old one",
        )
    return [f"{key} {_show(was)} -> {_show(now)}" for key, (was, now) in changed.items() if key != "name"]


def _show(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def outcome_state(folder: Path) -> str | None:
    """How the workers ended: complete, interrupted or failed; None where they have not."""
    state = read_json(folder / "outcome.json").get("state")
    return None if state is None else str(state)


def clear_requests(folder: Path) -> None:
    """Removes what would be mistaken for news of this start: the last outcome, a request to stop."""
    for name in ("outcome.json", "stop"):
        (folder / name).unlink(missing_ok=True)


def update_status(folder: Path, **fields: Any) -> None:
    """Changes fields of status.json, with a fresh heartbeat; those of the workers stay."""
    from generative.training.runfolder import atomic_write

    status = read_json(folder / "status.json") | fields | {"heartbeat": time.time()}
    atomic_write(folder / "status.json", json.dumps(status), durable=False)


def beating(folder: Path, progress: Callable[[int, int], None], every: float = 5.0) -> Callable[[int, int], None]:
    """`progress` that also gives the run a heartbeat: preparing much text takes longer than a run may be silent."""
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        progress(done, total)
        if time.monotonic() - last > every:
            last = time.monotonic()
            update_status(folder)

    return report


def leave(folder: Path, state: str, cause: str | Exception) -> None:
    """Say in status.json how the driver ended, and why; a run that its workers completed stays complete."""
    if outcome_state(folder) != "complete":
        with contextlib.suppress(RunFolderError):
            update_status(folder, state=state, message=_in_short(cause))


def _in_short(cause: str | Exception) -> str:
    if isinstance(cause, GenerativeError):
        return cause.problem
    first = (str(cause).strip().splitlines() or [""])[0]
    return first if isinstance(cause, str) else f"unexpected {type(cause).__name__}: {first}"


def record_event(folder: Path, kind: str, message: str) -> None:
    """One line of events.jsonl, at the step that status.json shows."""
    from generative.training.records import event_line
    from generative.training.runfolder import append_line

    step = read_json(folder / "status.json").get("step", 0)
    append_line(folder / "events.jsonl", event_line(kind, step, message))


def write_environment(folder: Path, environment: dict[str, Any]) -> None:
    """environment.json is that of this start; an earlier one that differs goes to the end of environments.jsonl."""
    from generative.training.runfolder import append_line, atomic_write

    path = folder / "environment.json"
    before = read_json(path)
    if before and before | {"time": None} != environment | {"time": None}:
        append_line(folder / "environments.jsonl", before)
    atomic_write(path, json.dumps(environment, indent=1))


def check_output(path: Path | None, option: str) -> None:
    """Make sure that a result can be written before the work for it begins.

    Args:
        path: the file that was asked for; None where none was.
        option: of the command line, for the message.

    Raises:
        ConfigError: there is no such folder, or a folder is in the way.
        RunFolderError: the folder cannot be written to.
    """
    from generative.training.runfolder import check_writable

    if path is None:
        return
    folder = path.absolute().parent
    if not folder.is_dir() or path.is_dir():
        raise ConfigError(
            f"{option} {path}: {'this is a folder' if path.is_dir() else f'there is no folder {folder}'}",
            "a file in a folder that exists",
            "make the folder, or name another file",
        )
    check_writable(folder)


def write_output(path: Path | None, value: Any) -> None:
    """A result as JSON, where a file was asked for; null for what is no number (JSON knows no NaN)."""
    from generative.training.runfolder import atomic_write, finite

    if path is not None:
        atomic_write(path, json.dumps(finite(value), indent=1, ensure_ascii=False))
