"""TensorBoard, Weights & Biases and Prometheus, imported only where they are asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from generative.errors import ConfigError
from generative.training.monitor import Tracker
from launch.folder import record_event
from launch.prometheus import Prometheus, check_port, is_loopback
from launch.schema import RunConfig


class TensorBoard:
    """Event files in a folder."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One point for each value."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush."""
        self._writer.close()


class WeightsAndBiases:
    """A run of a W&B project; the run folder's name identifies it, so that a resumed run goes on in it."""

    def __init__(self, project: str, config: RunConfig, folder: Path) -> None:
        import wandb

        name = folder.as_posix().replace("/", "-")
        self._run = wandb.init(
            project=project, name=name, id=name, resume="allow", config=config.model_dump(mode="json")
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One point for each value."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def check_trackers(config: RunConfig) -> None:
    """Whether the packages are there and the port is free; asked before any worker starts.

    Only rank 0 would meet the lack of them.

    Raises:
        ConfigError: a package is missing.
        ResourceError: the port for Prometheus is taken.
    """
    track = config.track
    wanted = {"tensorboard": "tensorboardX", "wandb": "wandb", "prometheus": "prometheus_client"}
    for key, package in wanted.items():
        if getattr(track, key) and importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"track.{key} needs the package {package}, which is not installed",
                expected="the tracker's package",
                remedy=f"pip install 'generative[{key}]', or remove track.{key}",
            )
    if track.prometheus and config.launch.address is None:  # rank 0 will run here
        check_port(track.prometheus_host, track.prometheus)


def make_trackers(config: RunConfig, folder: Path) -> list[Tracker]:
    """Those that the configuration asks for (see `check_trackers`)."""
    trackers: list[Tracker] = []
    if config.track.tensorboard:
        trackers.append(TensorBoard(folder / "tensorboard"))
    if config.track.wandb:
        trackers.append(WeightsAndBiases(config.track.wandb, config, folder))
    if config.track.prometheus:
        host, port = config.track.prometheus_host, config.track.prometheus
        trackers.append(Prometheus(host, port, config.name))
        if not is_loopback(host):
            record_event(folder, "warning", f"any machine that reaches {host}:{port} can read this run's metrics")
    return trackers
