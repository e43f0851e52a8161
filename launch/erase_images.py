"""Images of a model before and after an erasure, from equal seeds, where its pipeline can be run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from evaluation.erasure_report import Drawn
from generative.data.image_files import png
from generative.hub.erasing import Outcome
from generative.methods.rece.live import replace_weights


def draw(found: Outcome, texts: Sequence[str], count: int, seed: int) -> tuple[list[Drawn], str]:
    """Images of each text, or why there are none: a report without them is better than none.

    Args:
        found: the erasure.
        texts: prompts.
        count: images of each.
        seed: of the first; the others follow.
    """
    if found.model.folder is None:
        return [], "A file of weights alone is no pipeline that can be run."
    try:
        from diffusers import DiffusionPipeline
    except ImportError:
        return [], "diffusers is not installed (pip install 'generative[erase]')."
    try:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        pipe = DiffusionPipeline.from_pretrained(found.model.folder, trust_remote_code=False).to(device)
        pipe.set_progress_bar_config(disable=True)
        wanted = [(text, seed + i) for text in texts for i in range(count)]
        before = [_image(pipe, *one) for one in wanted]
        replace_weights(getattr(pipe, found.model.part), found.edited)
        after = [_image(pipe, *one) for one in wanted]
    except Exception as error:  # pipelines fail in many ways; the edit itself is done
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return [], f"The pipeline could not be run: {reason[:200]}"
    return [Drawn(text, a, b) for (text, _), a, b in zip(wanted, before, after, strict=True)], ""


def _image(pipe: Any, text: str, seed: int) -> bytes:
    """A PNG file. The generator is on the CPU, so that a seed means the same on every device."""
    found = pipe(text, generator=torch.Generator().manual_seed(seed), output_type="np").images[0]
    return png(torch.from_numpy(found).permute(2, 0, 1) * 2 - 1)
