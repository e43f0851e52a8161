"""The teacher of a distillation: what it tells of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from generative.config import merged
from generative.errors import CheckpointError, ConfigError
from generative.hub_names import source_parts
from launch.published_teachers import at_hand, is_published, name_encoder, of_pipeline

if TYPE_CHECKING:
    from generative.config import Layers
    from generative.method import Average
    from launch.schema import RunConfig

NAME = "f_distill"
FIXED = ("network", "shape", "classes", "augment_labels", "sigma_data")
"""What student and teacher have in common."""

Values = dict[str, Any]
"""Of the section `method`."""


class Wanted(NamedTuple):
    """Weights of the teacher that are asked for, and the key and value that ask."""

    weights: str
    key: str
    value: str


def complete(layers: Layers, folder: str) -> None:
    """Put what the teacher tells beneath what is given of a distillation; other methods stay as they are.

    It is read from the run itself, which has it once it was started; else from the teacher; else from the configuration
    that trains the teacher.

    Args:
        layers: of the run's configuration, before they are checked.
        folder: the run folder.

    Raises:
        ConfigError: no such teacher, or one that does not go with what is given.
    """
    method = layers.values.get("method")
    if isinstance(method, dict) and is_published(method):
        name_encoder(layers.values.get("data"), method)
    if not isinstance(method, dict) or method.get("name") != NAME or not isinstance(method.get("teacher"), str):
        return
    told = _of_started(Path(folder), method)
    if told is None:
        told = _told(method)
    if told is not None:
        _check_guidance(method, told.pop("label_dropout", None))
        if is_published(method):
            method["network"] = told["network"]  # the pipeline's own: what is written down is for plans without it
        _check_same(told, method)
        method.update(merged(told, method) | {"teacher_weights": told["teacher_weights"]})


def _of_started(folder: Path, method: Mapping[str, Any]) -> Values | None:
    """What the run itself has kept; None where it was not started, or with another teacher."""
    from launch.folder import stored_config

    kept = stored_config(folder)
    if kept is None or kept.method.name != NAME or kept.method.teacher != method["teacher"]:
        return None
    values: Values = kept.method.model_dump(mode="json")
    told = ("sigma_min", "sigma_max", *(("size",) if is_published(method) else ()))
    time = {key: values["time"][key] for key in told}
    wanted = method.get("teacher_weights", "ema")
    weights = values["teacher_weights"] if wanted == "ema" else wanted
    keys = (*FIXED, "student_sigma", "teacher_steps", "teacher_sampling")
    return {key: values[key] for key in keys} | {"time": time, "teacher_weights": weights}


def _told(method: Mapping[str, Any]) -> Values | None:
    """What teacher or configuration tells; None where neither is there but all is given."""
    if is_published(method):
        return of_pipeline(method)
    path, wanted = path_of(method["teacher"]), _wanted(method)
    _check_layout(path)
    if _exported(path):
        return _of_export(path, wanted)
    if exists(path):
        return _of_run(path, wanted)
    if method.get("teacher_config"):
        return _of_config(str(method["teacher_config"]), wanted)
    if method.get("network"):
        return None
    raise missing(path)


def _wanted(method: Mapping[str, Any]) -> Wanted:
    average = source_parts(method["teacher"], "")[2]
    if average:
        return Wanted(f"ema={average}", "method.teacher", method["teacher"])
    weights = str(method.get("teacher_weights", "ema"))
    return Wanted(weights, "method.teacher_weights", weights)


def _check_layout(path: Path) -> None:
    if (path / "model_index.json").is_file():
        raise ConfigError(
            f"method.teacher={path} is a pipeline of diffusers",
            expected="a run, checkpoint or export of the method edm, unless the network says otherwise",
            remedy="set method.network={name: stable_diffusion}, or begin with the configuration f_distill/sd15",
        )


def path_of(teacher: str) -> Path:
    """Of "PATH#NETWORK@AVERAGE"."""
    return Path(source_parts(teacher, "")[0])


def missing(path: Path) -> ConfigError:
    """There is no teacher."""
    if path.is_file():
        return ConfigError(
            f"method.teacher={path} is a file",
            expected="the folder of a run, checkpoint or export of the method edm",
            remedy=f"name the folder that `generative import {path} --out FOLDER` makes of a published network (which "
            "runs nothing in the file)",
        )
    return ConfigError(
        f"method.teacher={path}: there is no such run, checkpoint or export",
        expected="a diffusion model to distil (method edm), with at least one checkpoint",
        remedy="train it first (`generative train edm/...`), import a published one (`generative import`), correct "
        "method.teacher, or name the configuration that trains it in method.teacher_config",
    )


def without_missing(config: RunConfig) -> RunConfig:
    """For plans, which need no weights: a distillation without a teacher that is not there yet."""
    method = config.method
    if method.name != NAME or method.teacher is None:
        return config
    if at_hand(method.teacher) if is_published(method) else exists(path_of(method.teacher)):
        return config
    return config.model_copy(update={"method": method.model_copy(update={"teacher": None})})


def exists(path: Path) -> bool:
    """Whether there is an export, a checkpoint, or a run with one."""
    from generative.training.checkpoint.rotation import complete_steps

    return _exported(path) or path.parent.name == "checkpoints" or bool(complete_steps(path / "checkpoints"))


def _exported(path: Path) -> bool:
    return (path / "config.json").is_file()


def _of_run(path: Path, wanted: Wanted) -> Values:
    from generative.training.checkpoint import open_checkpoint
    from launch.opened import read_config, run_folder_of

    method = read_config(run_folder_of(path)).method
    _check_method(path, method.name)
    facts = open_checkpoint(path, verify=False).meta.get("facts", {})
    return _values(method, facts) | {"teacher_weights": _average(method, wanted)}


def _of_export(path: Path, wanted: Wanted) -> Values:
    from generative.methods.edm.config import EdmConfig

    method, facts = exported(path, "method.teacher")
    _check_method(path, str(method.get("name")))
    if wanted.weights not in ("ema", "trained"):
        raise ConfigError(
            f"{wanted.key}={wanted.value}, but an export ({path}) has one set of weights",
            expected="no choice of an average (method.teacher_weights may be ema or trained: both are that set)",
            remedy=f"correct {wanted.key}, or name the teacher's run in method.teacher",
        )
    return _values(EdmConfig.model_validate(method), facts) | {"teacher_weights": "trained"}


def exported(path: Path, key: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The section `method` and the facts of an exported folder.

    Raises:
        CheckpointError: the `key` names one that does not tell them.
    """
    try:
        stored = json.loads((path / "config.json").read_text(encoding="utf-8"))
        return dict(stored["method"]), dict(stored["facts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{key}={path}: its config.json does not tell how the network was made",
            expected="a folder that `generative export` or `generative import` wrote",
            remedy=f"export or import it again, or name its run in {key}",
        ) from error


def _of_config(name: str, wanted: Wanted) -> Values:
    import dataclasses

    from launch.modality import modality
    from launch.schema import load_run_config

    config = load_run_config(name)
    _check_method(name, config.method.name, "method.teacher_config")
    facts = dataclasses.asdict(modality(config).known_facts(config))
    return _values(config.method, facts) | {"teacher_weights": _average(config.method, wanted)}


def _check_method(source: Path | str, name: str, key: str = "method.teacher") -> None:
    if name != "edm":
        raise ConfigError(
            f"{key}={source} is of the method {name}",
            expected="a diffusion model, of the method edm",
            remedy=f"correct {key}",
        )


def _values(method: Any, facts: Mapping[str, Any]) -> Values:
    if method.latents is not None:
        raise ConfigError(
            "method.teacher is a diffusion model of latents (method.latents)",
            expected="one of pixels",
            remedy="train a teacher without method.latents, or distil a published pipeline (f_distill/sd15)",
        )
    shape, sampling = facts.get("sample_shape"), method.sampling
    return {
        "network": method.network.model_dump(mode="json") | {"dropout": 0.0},
        "shape": list(shape) if shape else None,
        "classes": (facts.get("classes") or 0) if method.classes is None else method.classes,
        "label_dropout": method.label_dropout,
        "augment_labels": method.augment_labels,
        "sigma_data": method.sigma_data,
        "time": {"sigma_min": sampling.sigma_min, "sigma_max": sampling.sigma_max},
        "student_sigma": sampling.sigma_max,
        "teacher_sampling": sampling.model_dump(mode="json"),
    }


def _average(method: Any, wanted: Wanted) -> str:
    """ "ema=0.999" or "trained", of the teacher."""
    from generative.method import PowerProfile

    kept = (*method.ema, *map(PowerProfile, method.ema_power))
    return average_of(kept, wanted.weights, f"{wanted.key}={wanted.value}", "teacher")


def average_of(kept: Sequence[Average], wanted: str, given: str, owner: str) -> str:
    """Exact name of weights of a run: "ema=0.999" or "trained".

    Raises:
        ConfigError: what is `given` ("KEY=VALUE") asks for weights that the `owner` has not.
    """
    from generative.hub.export import choose_average
    from generative.method import average_name

    try:
        found = choose_average(kept, wanted if kept or wanted != "ema" else "trained")
    except ConfigError as error:
        problem = f"{given}: the {owner} has no such weights"
        raise ConfigError(problem, error.expected, f"correct {given.partition('=')[0]}") from error
    return "trained" if found is None else f"ema={average_name(found)}"


def _check_same(told: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse settings that contradict the teacher's. Raises ConfigError."""
    pairs = [(key, told[key], given.get(key)) for key in FIXED]
    time = given.get("time")
    ours = time if isinstance(time, Mapping) else {}
    pairs += [(f"time.{key}", value, ours.get(key)) for key, value in told["time"].items()]
    for key, theirs, mine in pairs:
        if mine is None or theirs is None or _plain(mine, theirs) == _plain(theirs, theirs):
            continue
        raise ConfigError(
            f"method.{key}={json.dumps(mine)}, but the teacher has {json.dumps(theirs)}",
            expected="one shape, kind of network and range of noise for teacher and student",
            remedy=f"leave out method.{key}: it is read from the teacher",
        )


def _check_guidance(given: Mapping[str, Any], label_dropout: float | None) -> None:
    """Refuse to guide away from what a teacher of ours never learned; None: it is not known. Raises ConfigError."""
    guidance, remedy = given.get("guidance"), "leave out method.guidance"
    if guidance is None:
        guidance, remedy = _of_preset(given, "guidance"), "set method.guidance=1, which the preset does not"
    if label_dropout == 0 and isinstance(guidance, int | float) and guidance != 1:
        raise ConfigError(
            f"method.guidance={guidance}, but the teacher was trained with label_dropout=0: it knows no image without "
            "a class",
            expected="a teacher that was trained with and without classes, or guidance=1",
            remedy=f"{remedy}, or train the teacher with method.label_dropout=0.1 (for example)",
        )


def _of_preset(given: Mapping[str, Any], key: str) -> Any:
    """What the preset of a section `method` sets; None: nothing, or there is no such preset."""
    from generative.methods.f_distill.presets import PRESETS

    preset = PRESETS.get(str(given.get("preset")))
    return None if preset is None else preset.method.get(key)


def _plain(value: Any, like: Any) -> Any:
    """A value as it is compared: of a section the keys that are given, without dropout; numbers by value."""
    if isinstance(value, Mapping) and isinstance(like, Mapping):
        return {**like, **value, "dropout": None}
    return [*value] if isinstance(value, list | tuple) else value
