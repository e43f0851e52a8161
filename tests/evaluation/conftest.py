"""Makes run folders as a trainer would leave them, without a trainer."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from generative.data.speech_wave import wave_bytes
from tests.support.voices import voice

MASK = "▁"
TEXT = (
    "def get(self, name):↵    value = self._values.get(name)↵    if value is None:↵"
    "        raise KeyError(name)↵    return value↵"
)


def infill_item(text: str = TEXT, truth: str | None = None, calls: int = 12, seed: int = 0) -> dict[str, Any]:
    """An item whose middle third is written in `calls` steps."""
    rng = np.random.default_rng(seed)
    hidden = list(range(len(text) // 3, 2 * len(text) // 3))
    prompt = "".join(MASK if p in hidden else c for p, c in enumerate(text))
    states, left = [], rng.permutation(hidden).tolist()
    for call, new in enumerate(np.array_split(np.array(left), calls), start=1):
        left = [p for p in left if p not in new]
        shown = "".join(MASK if p in left else c for p, c in enumerate(text))
        states.append({"call": call, "text": shown, "new": sorted(map(int, new)), "masked": sorted(left)})
    return {"kind": "infill", "prompt": prompt, "text": text, "truth": truth or text, "states": states}


def train_row(step: int, rng: np.random.Generator, updates: tuple[str, ...], steps: int) -> dict[str, Any]:
    """One line of metrics.jsonl."""
    level = 2.3 + 3.2 * np.exp(-step / (steps / 9))
    noise = [float(level * (0.45 + 0.06 * k) + rng.normal(0, 0.1)) for k in range(10)]
    return {
        "kind": "train",
        "step": step,
        "time": 1.76e9 + 0.17 * step,
        "loss": {u: float(level + 0.3 * i + rng.gamma(2, 0.12) - 0.24) for i, u in enumerate(updates)},
        "grad_norm": {u: float(0.5 + rng.gamma(2, 0.2)) for u in updates},
        "lr": {u: 1e-3 * min(1, step / 20) * (0.55 + 0.45 * float(np.cos(np.pi * step / steps))) for u in updates},
        "metrics": {updates[0]: {"loss_by_noise": [None, *noise[1:]], "masked_fraction": float(rng.normal(0.5, 0.04))}},
        "samples": step * 64,
        "tokens": step * 8192,
        "seconds": 0.17,
        "tokens_per_second": float(41000 + rng.normal(0, 900)),
        "samples_per_second": 320.0,
        "mfu": None,
        "host_memory_gb": 1.1 + 0.1 * min(1, step / 50),
        "device_memory_gb": None,
    }


def figure(value: float, stderr: float, unit: str = "bits/byte", **more: Any) -> dict[str, Any]:
    """One entry of evaluation.json."""
    return {"value": value, "stderr": stderr, "n": 96, "unit": unit, "protocol": "", "bound": None, **more}


def evaluation() -> dict[str, Any]:
    """A whole evaluation.json."""
    held_out = "held-out files of the Python library, 96 windows of 128 tokens, 16 strata"
    spans = "96 held-out windows of 128 tokens, span of 32 in the middle"
    return {
        "time": 1.76e9 + 80,
        "step": 400,
        "model": "ema 0.999",
        "figures": {
            "elbo": figure(3.274, 0.021, protocol=held_out, bound="upper"),
            "unigram": figure(4.91, 0.03, protocol="add-delta counts"),
            "bigram": figure(4.02, 0.03, protocol="add-delta counts"),
            "trigram": figure(3.11, 0.03, protocol="add-delta counts"),
            "infill_both_sides": figure(1.93, 0.03, "nats/token", protocol=spans, bound="upper"),
            "infill_left_only": figure(2.21, 0.03, "nats/token", protocol=spans, bound="upper"),
        },
        "loss_by_noise": {
            "edges": [k / 10 for k in range(11)],
            "value": [1.1 + 0.17 * k for k in range(10)],
            "stderr": [0.1 - 0.008 * k for k in range(10)],
        },
    }


def png(width: int = 5, height: int = 4, shade: int = 128, noise: int = 0) -> bytes:
    """A gray PNG file, built by hand; `noise` bytes that do not compress make it larger."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([shade]) * width) * height
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))]
    parts += [chunk(b"ruIn", bytes(noise))] if noise else []
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def gan_row(step: int, rng: np.random.Generator) -> dict[str, Any]:
    """One line of metrics.jsonl of a GAN whose discriminator takes further updates in a step."""
    updates = ("discriminator", "generator", "discriminator_more")
    of_discriminator = ("adversarial", "dlle", "disomap", "r1", "entropy", "entropy_weight", "nearest", "real", "fake")
    names = dict.fromkeys(updates, of_discriminator) | {"generator": ("adversarial", "fake", "entropy", "nearest")}
    row = train_row(step, rng, updates, 100)
    row["metrics"] = {u: {name: float(rng.normal()) for name in names[u]} for u in updates}
    return {name: value for name, value in row.items() if not name.startswith("tokens")}


def image_evaluation() -> dict[str, Any]:
    """evaluation.json of an image model."""
    against = "5,000 generated against 5,000 reference images, small network trained on digits; all features"
    modes = "5,000 samples, 1,000 modes, KL of a perfect sampler about 0.1"
    figures = {
        "modes": figure(985, 2.9, "", protocol=modes),
        "mode_kl": figure(0.21, 0.006, "nats", protocol=modes),
        "fid": figure(12.31, 0.42, "", protocol=f"{against}; biased upwards by about 1/N", bound="upper"),
        "recall": figure(0.68, 0.01, "", protocol=f"{against}; k=5, <"),
        "coverage": figure(0.91, 0.01, "", protocol=f"{against}; k=5, <"),
    }
    data = "5,000 samples against training samples of stacked digits"
    return {"time": 1.76e9, "step": 100, "model": "ema 0.998", "data": data, "figures": figures}


def write_images(folder: Path, steps: int = 100, every: int = 25) -> Path:
    """A whole run folder of a GAN: pictures and measurements every `every` steps, an alarm at the first."""
    rng = np.random.default_rng(0)
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    rows = [gan_row(step, rng) for step in range(1, steps + 1)]
    for step in range(every, steps + 1, every):
        name = f"step_{step:06d}"
        items = [
            {"kind": "grid", "file": f"{name}.png", "title": "64 samples", "count": 64, "columns": 8},
            {"kind": "neighbours", "file": f"{name}_neighbours.png", "title": "9 samples", "count": 9, "columns": 9},
        ]
        for item, size in zip(items, (263, 329), strict=True):
            (folder / "samples" / str(item["file"])).write_bytes(png(size, size, shade=step % 256))
        record = {"time": 1.76e9, "step": step, "model": "ema 0.998", "items": items}
        (folder / "samples" / f"{name}.json").write_text(json.dumps(record))
        seen = {"coverage": step / steps, "to_training": 4.0, "among_generated": 3.0, "among_training": 4.1}
        seen |= {"near_duplicates": 0.01, "near_copies": 0.0}
        rows.append({"version": 1, "kind": "monitor", "step": step, "time": 1.76e9, "metrics": seen})
    write_lines(folder / "metrics.jsonl", rows)
    told = [
        ("start", 0, "2 workers"),
        ("warning", every, "mode coverage 0.25 of 1,000 samples"),
        ("complete", steps, ""),
    ]
    write_lines(folder / "events.jsonl", [{"time": 1.76e9, "kind": k, "step": s, "message": m} for k, s, m in told])
    status = {"state": "complete", "step": steps, "steps": steps, "config": "mee_gan/quickstart", "world": 2}
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "outcome.json").write_text(json.dumps({"state": "complete", "exit_code": 0}))
    (folder / "evaluation.json").write_text(json.dumps(image_evaluation()))
    return folder


def speech_item(folder: Path, name: str, title: str, gain: float = 7.0, seconds: float = 0.3) -> dict[str, Any]:
    """An item of a samples file, and its files: a voice in noise, less noise, and the voice alone."""
    clean = voice(len(title), seconds)
    noise = np.random.default_rng(len(title)).normal(0, 0.02, len(clean))
    item: dict[str, Any] = {"kind": "speech", "title": title, "file": f"{name}.png", "sounds": {}}
    for sound, share in (("noisy", 1.0), ("enhanced", 10 ** (-gain / 20)), ("clean", 0.0)):
        item["sounds"][sound] = f"{name}_{sound}.wav"
        (folder / f"{name}_{sound}.wav").write_bytes(wave_bytes(clean + share * noise, 16000))
    (folder / f"{name}.png").write_bytes(png(800, 484))
    figures = {"si_sdr": {"noisy": 5.04, "enhanced": 5.04 + gain}, "estoi": {"noisy": 0.611, "enhanced": 0.834}}
    return item | {"figures": figures}


def write_speech(folder: Path, steps: tuple[int, ...] = (50, 100, 150), count: int = 2, **more: Any) -> Path:
    """A run folder of speech enhancement: `count` utterances at each of some steps, the later the better."""
    samples = folder / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    for step in steps:
        name = f"step_{step:06d}"
        found = [speech_item(samples, f"{name}_{i}", f"made_test {i}, 5 dB", step / 20, **more) for i in range(count)]
        record = {"time": 1.76e9, "step": step, "model": "ema 0.999", "items": found}
        (samples / f"{name}.json").write_text(json.dumps(record))
    rng = np.random.default_rng(0)
    write_lines(folder / "metrics.jsonl", [train_row(step, rng, ("score",), steps[-1]) for step in range(steps[-1])])
    status = {"state": "complete", "step": steps[-1], "steps": steps[-1], "config": "sgmse/quickstart", "world": 2}
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "outcome.json").write_text(json.dumps({"state": "complete", "exit_code": 0}))
    return folder


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_run(
    folder: Path, steps: int = 400, updates: tuple[str, ...] = ("denoise",), state: str = "complete", seed: int = 0
) -> Path:
    """A whole run folder: one restart in the middle, validation every tenth of the way, samples twice."""
    rng = np.random.default_rng(seed)
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    rows = [train_row(step, rng, updates, steps) for step in range(1, steps + 1)]
    every = max(1, steps // 10)
    for step in range(every, steps + 1, every):
        loss = {u: {"value": 2.35 + 3.1 * float(np.exp(-9 * step / steps)), "stderr": 0.04, "n": 64} for u in updates}
        rows.append({"kind": "validation", "step": step, "time": 1.76e9, "loss": loss})
    write_lines(folder / "metrics.jsonl", sorted(rows, key=lambda row: (row["step"], row["kind"])))
    middle = steps // 2
    events = [
        ("start", 0, "2 workers, gloo"),
        ("checkpoint", middle, f"checkpoints/step_{middle:06d}"),
        ("restart", middle + steps // 20, "worker 1 was killed by signal 9; going on from the newest checkpoint"),
        ("complete", steps, "400 steps in 1 min 8 s"),
    ]
    write_lines(
        folder / "events.jsonl",
        [{"time": 1.76e9 + s, "kind": k, "step": s, "message": m} for k, s, m in events],
    )
    status = {"state": state, "step": steps, "steps": steps, "heartbeat": 1.76e9 + 80, "world": 2, "restarts": 1}
    status |= {"lost_seconds": 3.4, "config": "masked_diffusion/quickstart"}
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "outcome.json").write_text(json.dumps({"state": state, "exit_code": 0}))
    (folder / "evaluation.json").write_text(json.dumps(evaluation()))
    (folder / "config.yaml").write_text("method:\n  name: masked_diffusion\ntrain:\n  steps: 400\n  seed: 1\n")
    (folder / "environment.json").write_text(json.dumps({"python": "3.11.7", "torch": "2.13.0", "cores": 4}))
    for step in (middle, steps):
        plain = {"kind": "sample", "prompt": "", "text": TEXT, "truth": None, "states": []}
        drawn = [infill_item(calls=12), infill_item(truth=TEXT.replace("value", "entry"), seed=1), plain, plain]
        (folder / "samples" / f"step_{step:06d}.json").write_text(
            json.dumps({"step": step, "model": "ema 0.999", "items": drawn})
        )
    return folder


@pytest.fixture(scope="session")
def fake() -> SimpleNamespace:
    """The makers above."""
    return SimpleNamespace(
        write_run=write_run,
        write_images=write_images,
        write_speech=write_speech,
        write_lines=write_lines,
        infill_item=infill_item,
        evaluation=evaluation,
        image_evaluation=image_evaluation,
        png=png,
        text=TEXT,
    )
