"""The autoencoder of a diffusion model of latents: what it tells of itself, and how large its latents are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from generative.config import merged
from generative.errors import ConfigError
from launch.teachers import average_of, exists, exported

if TYPE_CHECKING:
    from generative.config import Layers
    from launch.schema import RunConfig

METHOD = "kl_vae"
MEASURED, AT_ONCE, DIGITS = 512, 64, 6
"""Training images whose latents are measured, how many at once, and digits of the scaling factor."""

Values = dict[str, Any]
"""Of the section `method.latents`."""


def complete(layers: Layers, folder: str) -> None:
    """Put what the autoencoder tells beneath what is given in `method.latents`.

    It is read from the run itself, which has it once it was started; else from the autoencoder; else from the
    configuration that trains it.

    Args:
        layers: of the run's configuration, before they are checked.
        folder: the run folder.

    Raises:
        ConfigError: no such autoencoder, or one that does not go with what is given.
    """
    latents = layers.values["method"]["latents"]
    if not isinstance(latents.get("autoencoder"), str):
        return
    told = _of_started(Path(folder), latents) or _told(latents)
    if told is None:
        return
    given = latents.get("network")
    network = told["network"]
    wrong = next((key for key in given or () if _plain(given[key]) != _plain(network.get(key))), None)
    if wrong is not None:
        raise ConfigError(
            f"method.latents.network.{wrong}={json.dumps(given[wrong])}, but the autoencoder has "
            f"{json.dumps(network.get(wrong))}",
            expected="its own sizes",
            remedy="leave out method.latents.network: it is read from the autoencoder",
        )
    stated = {key: value for key, value in latents.items() if value is not None}
    latents.update(merged(told, stated) | {"network": network, "weights": told["weights"]})


def missing(path: Path) -> ConfigError:
    """There is no autoencoder."""
    return ConfigError(
        f"method.latents.autoencoder={path}: there is no such run, checkpoint or export",
        expected="an autoencoder (method kl_vae), with at least one checkpoint",
        remedy="train it first (`generative train kl_vae/...`), correct method.latents.autoencoder, or name the "
        "configuration that trains it in method.latents.autoencoder_config",
    )


def without_missing(config: RunConfig) -> RunConfig:
    """For plans, which need no weights: latents without the weights of an autoencoder that is not there yet."""
    latents = getattr(config.method, "latents", None)
    if latents is None or latents.autoencoder is None or exists(Path(latents.autoencoder)):
        return config
    absent = latents.model_copy(update={"autoencoder": None})
    return config.model_copy(update={"method": config.method.model_copy(update={"latents": absent})})


def scale_of(method: Any, path: Path, weights: str) -> float:
    """The scaling factor of a run of kl_vae: as its section says, or measured on the first of its training images.

    Args:
        method: the section.
        path: the run, or one of its checkpoints.
        weights: "ema", "ema=0.999" or "trained".

    Raises:
        ConfigError, CheckpointError, DataError: what is missing of the run or its data.
    """
    if method.scaling_factor is not None:
        return float(method.scaling_factor)
    from generative.nets.kl_autoencoder import scaling_factor
    from launch.opened import open_run

    run = open_run(path)
    net = run.networks(weights)[0]["autoencoder"]
    count = min(MEASURED, len(run.data.train))
    chosen = np.array_split(np.arange(count), -(-count // AT_ONCE))
    images = (run.data.train.fetch(some)["sample"].to(run.device) for some in chosen)
    return float(f"{scaling_factor(net, images):.{DIGITS}g}")


def _of_started(folder: Path, latents: Mapping[str, Any]) -> Values | None:
    """What the run itself has kept; None where it was not started, or with another autoencoder."""
    from launch.folder import stored_config

    kept = stored_config(folder)
    found = None if kept is None else getattr(kept.method, "latents", None)
    if found is None or found.autoencoder != latents["autoencoder"]:
        return None
    values: Values = found.model_dump(mode="json")
    wanted = latents.get("weights", "ema")
    return {
        "network": values["network"],
        "scaling_factor": values["scaling_factor"],
        "weights": values["weights"] if wanted == "ema" else wanted,
    }


def _told(latents: Mapping[str, Any]) -> Values | None:
    """What autoencoder or configuration tells; None where neither is there but its sizes are given."""
    path, weights = Path(latents["autoencoder"]), str(latents.get("weights", "ema"))
    if (path / "model_index.json").is_file() or (path / "diffusion_pytorch_model.safetensors").is_file():
        raise ConfigError(
            f"method.latents.autoencoder={path} is in the layout of diffusers",
            expected="a run, checkpoint or export of the method kl_vae",
            remedy=f"name the folder that `generative import {path}/diffusion_pytorch_model.safetensors --out FOLDER` "
            "makes of it (of a pipeline: of its folder vae)",
        )
    if (path / "config.json").is_file():
        return _of_export(path)
    if exists(path):
        return _of_run(path, weights, latents.get("scaling_factor"))
    if latents.get("autoencoder_config"):
        return _of_config(str(latents["autoencoder_config"]), weights)
    if latents.get("network"):
        return None
    raise missing(path)


def _of_export(path: Path) -> Values:
    from generative.methods.kl_vae.config import KlVaeConfig

    section, _ = exported(path, "method.latents.autoencoder")
    _check_method(path, str(section.get("name")))
    method = KlVaeConfig.model_validate(section)
    return {
        "network": method.network.model_dump(mode="json"),
        "scaling_factor": method.scaling_factor,
        "weights": "trained",
    }


def _of_run(path: Path, weights: str, given: float | None) -> Values:
    from launch.opened import read_config, run_folder_of

    method = read_config(run_folder_of(path)).method
    _check_method(path, method.name)
    exact = average_of(method.ema, weights, f"method.latents.weights={weights}", "autoencoder")
    scale = given if given is not None else scale_of(method, path, exact)
    return {"network": method.network.model_dump(mode="json"), "scaling_factor": scale, "weights": exact}


def _of_config(name: str, weights: str) -> Values:
    from launch.schema import load_run_config

    method = load_run_config(name).method
    _check_method(Path(name), method.name)
    exact = average_of(method.ema, weights, f"method.latents.weights={weights}", "autoencoder")
    scale = method.scaling_factor
    return {"network": method.network.model_dump(mode="json"), "scaling_factor": scale, "weights": exact}


def _check_method(path: Path, name: str) -> None:
    if name != METHOD:
        raise ConfigError(
            f"method.latents.autoencoder={path} is of the method {name}",
            expected=f"an autoencoder: a run or export of the method {METHOD}",
            remedy="correct method.latents.autoencoder",
        )


def _plain(value: Any) -> Any:
    return [*value] if isinstance(value, list | tuple) else value
