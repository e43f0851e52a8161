"""Images with captions in a folder, and a tiny Stable Diffusion that can be distilled; nothing is fetched."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

TEXTS = ["a church", "a golf ball", "an oak tree", "a dog", "art", "a person in a garden"]


def captioned_images(folder: Path, count: int = 12, side: int = 16) -> Path:
    """Images of some sides with metadata.csv, as the hub has them."""
    from PIL import Image

    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "text"])
        for i in range(count):
            pixels = np.random.default_rng(i).integers(0, 256, (side + i % 3, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:02d}.png")
            table.writerow([f"{i:02d}.png", TEXTS[i % len(TEXTS)]])
    return folder


def tiny_pipeline(folder: Path, prediction: str = "epsilon") -> Path:
    """Stable Diffusion in diffusers' layout, with random weights and Stable Diffusion 1.5's noise."""
    from diffusers import DDIMScheduler

    from tests.support.pipelines import stable_diffusion

    pipe = stable_diffusion()
    told = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    pipe.scheduler = DDIMScheduler(prediction_type=prediction, set_alpha_to_one=False, steps_offset=1, **told)
    pipe.save_pretrained(folder)
    return folder
