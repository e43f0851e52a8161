"""Enhanced utterances as files to listen to, with pictures of their spectrograms."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.speech import SpeechItem, score_file
from generative.data.speech_data import SpeechData
from generative.data.speech_pictures import spectrogram_png
from generative.data.speech_wave import wave_bytes
from generative.methods.sgmse.enhancer import Enhancer
from generative.training.runfolder import replace_file
from launch.speech_evaluation import Enhancing, metrics_of, noise_streams
from launch.speech_sections import SpeechEvaluation, SpeechSampling

WATCHED = ("si_sdr", "estoi")
"""Figures that stand beside a sound; cheap ones."""


@dataclass(frozen=True)
class Heard:
    """What listening to a model came to.

    Args:
        record: content of the samples file.
        files: sounds and pictures by name.
        figures: means over the utterances, by name.
    """

    record: dict[str, Any]
    files: dict[str, bytes]
    figures: dict[str, float]

    def write(self, folder: Path) -> None:
        """The files, into a folder that may not exist yet; whoever writes the record does so after them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            replace_file(folder / name, content, durable=False)


def listen(settings: SpeechSampling, part: str, data: SpeechData, enhancer: Enhancer, model: str, step: int) -> Heard:
    """Enhance `settings.count` held-out utterances, evenly over all.

    Args:
        settings: how many.
        part: "test" or "validation".
        data: held-out utterances.
        enhancer: with the network.
        model: name of the weights.
        step: that they were trained for.
    """
    count = len(data.whole[part])
    numbers = [round(x) for x in np.linspace(0, count - 1, min(settings.count, count))]
    enhancing = Enhancing(enhancer, data, part, noise_streams(settings.seed))
    names = metrics_of(SpeechEvaluation(metrics=None), data.sample_rate)
    watched = [name for name in WATCHED if name in names]
    files: dict[str, bytes] = {}
    items = []
    for place, item in enumerate(enhancing.items(numbers)):
        made, told = _item(item, f"step_{step:06d}_{place}", data.sample_rate, watched)
        files |= made
        items.append(told)
    record = {"time": time.time(), "step": step, "model": model, "items": items}
    return Heard(record, files, _means(items))


def _item(item: SpeechItem, stem: str, rate: int, metrics: Sequence[str]) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Files, and the entry of the samples file, of one utterance."""
    sounds = {"noisy": item.noisy, "enhanced": item.estimate, "clean": item.clean}
    signals = {name: np.asarray(sound, dtype=np.float32) for name, sound in sounds.items()}
    # One factor for all three, so that none is clipped and their levels compare.
    loudest = max(float(np.abs(signal).max()) for signal in signals.values())
    scaled = {name: signal / max(1.0, loudest / 0.99) for name, signal in signals.items()}
    files = {f"{stem}_{name}.wav": wave_bytes(signal, rate) for name, signal in scaled.items()}
    files[f"{stem}.png"] = spectrogram_png(list(signals.values()), rate)
    scores = {
        name: score_file(SpeechItem(item.name, item.clean, signals[name]), rate, metrics).values
        for name in ("noisy", "enhanced")
    }
    figures = {
        metric: {name: found[metric] for name, found in scores.items()}
        for metric in metrics
        if all(metric in found for found in scores.values())
    }
    entry = {
        "kind": "speech",
        "title": item.name,
        "file": f"{stem}.png",
        "sounds": {name: f"{stem}_{name}.wav" for name in signals},
        "figures": figures,
    }
    return files, entry


def _means(items: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean of each figure of the enhanced utterances, and its gain over the noisy ones."""
    found: dict[str, float] = {}
    for metric in dict.fromkeys(name for item in items for name in item["figures"]):
        pairs = [item["figures"][metric] for item in items if metric in item["figures"]]
        found[metric] = float(np.mean([pair["enhanced"] for pair in pairs]))
        found[f"{metric}_gain"] = float(np.mean([pair["enhanced"] - pair["noisy"] for pair in pairs]))
    return found
