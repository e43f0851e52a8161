"""Healthy things to be damaged: small runs of three methods, a campaign, images, recordings and texts."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from random import Random

import numpy as np

from launch.robustness.attempts import Attempt, attempt

LOCAL = ("launch.backend=local", "launch.workers=1")
SHORT = (
    "train.steps=4",
    "train.checkpoint={every_steps: 2, keep_last: 2}",
    "train.validation.every_steps=null",
    "train.sample_every=null",
    "evaluate.at_end=false",
    "sample.at_end=false",
)

TEXT = (
    "data={name: files, path: texts, cache: cache, sequence_length: 16}",
    "method.network={layers: 1, heads: 1, width: 16, ff_width: 32, max_length: 16}",
    "train.batch_size=4",
    "evaluate.windows=2",
    "evaluate.draws=2",
    "sample={count: 1, length: 16}",
)
SPEECH = (
    "data={name: made, sample_rate: 8000, length: 1984, size: 8, seconds: 0.5, validation_size: 2, test_size: 2}",
    "method.frames=32",
    "method.network={name: ncsnpp, width: 8, multipliers: [1, 1], res_blocks: 1, attention_levels: []}",
    "train.batch_size=2",
    "method.sampling={steps: 1}",
    "evaluate.files=1",
    "sample.count=1",
)
IMAGE = (
    "data={name: folder, path: images, size: 8, channels: 1, cache: cache}",
    "method.network={name: song, width: 8, multipliers: [1], blocks: 1, attention: [], dropout: 0.0}",
    "method.sampling={sampler: heun, steps: 2}",
    "train.batch_size=4",
    "evaluate={samples: 8, extractor: pixels}",
    "sample={count: 4, monitor: 0}",
)
RUNS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "text": ("masked_diffusion/quickstart", TEXT),
    "speech": ("sgmse/quickstart", SPEECH),
    "image": ("edm/quickstart", IMAGE),
}
"""Configuration and settings of each run, which is in the folder `run` of a folder of its name."""

CAMPAIGN = """\
families: {ar: {config: base.yaml}}
budgets: [4.0e+7, 8.0e+7]
sizes: [{layers: 1, heads: 1, width: 8}, {layers: 1, heads: 2, width: 16}]
min_steps: 4
tolerance: 0.2
launch: {backend: local}
dir: campaign
"""
BASE = """\
data: {name: files, path: texts, sequence_length: 16, cache: cache}
method: {name: autoregressive, network: {max_length: 16, padding_multiple: 1}}
train:
  steps: 1
  batch_size: 4
  optimizer: {lr: 3.0e-3}
  schedule: {name: cosine, warmup_steps: 2}
  checkpoint: {every_steps: 5, keep_last: 1, keep_best: false}
evaluate: {windows: 8, draws: 4}
"""


def make(base: Path, seconds: float) -> dict[str, Path]:
    """A folder of each kind: text, speech, image, campaign. Commands in it take paths relative to it.

    Raises:
        RuntimeError: a command failed that should not; the message is what it said.
    """
    folders = {name: base / name for name in (*RUNS, "campaign")}
    for folder in folders.values():
        folder.mkdir(parents=True)
        _texts(folder / "texts")
    _images(folders["image"] / "images")
    _sounds(folders["speech"] / "sounds")
    for name, (config, settings) in RUNS.items():
        _must(Attempt(name, ("train", config, "run.dir=run", *LOCAL, *SHORT, *settings), folders[name]), seconds)
    (folders["campaign"] / "campaign.yaml").write_text(CAMPAIGN)
    (folders["campaign"] / "base.yaml").write_text(BASE)
    _must(Attempt("campaign", ("campaign", "run", "campaign.yaml"), folders["campaign"]), seconds)
    return folders


def copied(folder: Path, to: Path) -> Path:
    """A copy of a folder of material, for one attempt."""
    return Path(shutil.copytree(folder, to))


def _must(what: Attempt, seconds: float) -> None:
    verdict = attempt(what, seconds)
    if verdict.code != 0:
        raise RuntimeError(f"generative {' '.join(what.words)} ended with {verdict.code}:\n{verdict.told}")


def _texts(folder: Path) -> None:
    folder.mkdir()
    random = Random(0)
    for number in range(6):
        words = (random.choice(["to", "be", "or", "not", "that", "is"]) for _ in range(400))
        (folder / f"{number}.txt").write_text(" ".join(words))


def _images(folder: Path) -> None:
    from PIL import Image

    folder.mkdir()
    draws = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(draws.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{number:02d}.png")


def _sounds(folder: Path) -> None:
    soundfile = importlib.import_module("soundfile")
    folder.mkdir()
    draws = np.random.default_rng(0)
    for number in range(3):
        soundfile.write(folder / f"{number}.wav", 0.1 * draws.standard_normal(4000 + 500 * number), 8000)
    soundfile.write(folder / "3.flac", 0.1 * draws.standard_normal(4000), 8000)
