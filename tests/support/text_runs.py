"""Small runs of text models, prepared or trained in this process."""

from __future__ import annotations

from pathlib import Path

from generative.config import to_yaml
from launch.schema import RunConfig, load_run_config
from launch.worker import run_worker
from tests.end_to_end.runs import CONFIG


def start(texts: Path, folder: Path, *overrides: str) -> RunConfig:
    """The configuration of a run that is to begin in a folder."""
    base = [f"run.dir={folder}", f"data.path={texts}", f"data.cache={texts}/cache", "launch.backend=local"]
    config = load_run_config(str(CONFIG), [*base, "train.steps=12", "train.checkpoint.every_steps=4", *overrides])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    return config


def finished(texts: Path, folder: Path, *overrides: str) -> Path:
    """The folder of a run that was trained."""
    run_worker(start(texts, folder, *overrides), folder, rank=0, world=1, attempt=1)
    return folder
