"""Images of a model before and after an erasure, from equal seeds, where its pipeline can be run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from evaluation.erasure_report import Drawn
from generative.data.image_files import png
from generative.hub.erasing import Outcome
from generative.hub.pixel_pipeline import PixelPipeline
from generative.hub.text_to_image import TextToImage
from generative.methods.rece.live import replace_weights
from launch.erase_pipelines import as_published, open_pipe


def draw(found: Outcome, texts: Sequence[str], count: int, seed: int) -> tuple[list[Drawn], str]:
    """Images of each text, or why there are none: a report without them is better than none.

    Args:
        found: the erasure.
        texts: prompts.
        count: images of each.
        seed: of the first; the others follow.
    """
    if found.model.folder is None and found.model.text is None:
        return [], "A file of weights alone is no pipeline that can be run; give one with --text."
    if importlib.util.find_spec("diffusers") is None:
        return [], "diffusers is not installed (pip install 'generative[erase]')."
    try:
        denoiser, image = opened_pipeline(found.model)
        wanted = [(text, seed + i) for text in texts for i in range(count)]
        before = [png(image(*one)) for one in wanted]
        replace_weights(denoiser, found.edited)
        after = [png(image(*one)) for one in wanted]
    except Exception as error:  # pipelines fail in many ways; the edit itself is done
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return [], f"The pipeline could not be run: {reason[:200]}"
    return [Drawn(text, a, b) for (text, _), a, b in zip(wanted, before, after, strict=True)], ""


def opened_pipeline(model: TextToImage, published: bool = False) -> tuple[Any, Callable[..., Tensor]]:
    """The denoiser, and what draws with it: (text, seed, guidance or None) -> [C, H, W] in [-1, 1].

    Args:
        model: see `open_pipe`.
        published: sample as RECE's evaluation does: LMS in 50 steps (UNets in latents; others as they do by default).
    """
    pipe = open_pipe(model)
    if isinstance(pipe, PixelPipeline):
        return pipe.unet, pipe.image
    return getattr(pipe, model.part), partial(_image, pipe, as_published(pipe, model) if published else {})


def _image(pipe: Any, more: dict[str, Any], text: str, seed: int, guidance: float | None = None) -> Tensor:
    """The generator is on the CPU, so that a seed means the same on every device."""
    told = more if guidance is None else more | {"guidance_scale": guidance}
    found = pipe(text, generator=torch.Generator().manual_seed(seed), output_type="np", **told).images[0]
    return torch.from_numpy(found).permute(2, 0, 1) * 2 - 1
