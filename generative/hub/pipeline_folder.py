"""A distilled text-to-image student as a pipeline of diffusers: its U-Net, all else as the teacher has it.

A student of one step is G(s z), z ~ N(0, 1), s the last noise over signal of the schedule. That is a single step of
Euler's method in diffusers' EulerDiscreteScheduler with trailing steps: it starts from s z, feeds x / sqrt(s^2 + 1),
and goes to x - s eps.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from generative.errors import CheckpointError
from generative.hub.card import Card, render
from generative.hub.files import write_files
from generative.hub.folder import appearing, check_space
from generative.hub.tensors import SavedTensor, Source

KEPT = ("vae", "text_encoder", "tokenizer")
"""Parts that student and teacher share."""

UNET = "diffusion_pytorch_model.safetensors"
PREFIX = "unet."
"""Of the U-Net's weights in the student."""


@dataclass(frozen=True)
class Pipeline:
    """Everything that goes into the folder.

    Args:
        source: where the student's weights are.
        tensors: what is written of it, by the student's names.
        unet: settings of its U-Net.
        schedule: of its noise.
        teacher: folder of the teacher's pipeline.
        card: README.md.
    """

    source: Source
    tensors: Sequence[SavedTensor]
    unet: Mapping[str, Any]
    schedule: Mapping[str, Any]
    teacher: Path
    card: Card

    def write(self, folder: Path, on_bytes: Callable[[int], None] = lambda count: None) -> list[Path]:
        """Write the folder, a new one; it appears when everything in it is on the disk.

        Raises:
            CheckpointError: the checkpoint or the teacher's folder cannot be read.
            ResourceError: the disk is full or cannot be written; nothing is left behind.
        """
        kept = [(name, path) for name in KEPT for path in _files(self.teacher / name)]
        named = [replace(tensor, name=tensor.name.removeprefix(PREFIX)) for tensor in self.tensors]
        check_space(folder, sum(t.nbytes for t in named) + sum(path.stat().st_size for _, path in kept))
        with appearing(folder, force=False) as partial:
            for name, path in kept:
                (partial / name).mkdir(exist_ok=True)
                shutil.copyfile(path, partial / name / path.name)
            for name in ("unet", "scheduler"):
                (partial / name).mkdir()
            write_files(partial / "unet", {UNET: named}, self.source, on_bytes)
            _write(partial / "unet" / "config.json", {"_class_name": "UNet2DConditionModel", **self.unet})
            _write(partial / "scheduler" / "scheduler_config.json", _scheduler(self.schedule))
            _write(partial / "model_index.json", INDEX)
            (partial / "README.md").write_text(render(self.card), encoding="utf-8")
        return sorted(path for path in folder.rglob("*") if path.is_file())


INDEX: Mapping[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
}


def _scheduler(schedule: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: value for key, value in schedule.items() if key != "rescale_betas_zero_snr"}
    return {"_class_name": "EulerDiscreteScheduler", **told, "timestep_spacing": "trailing", "steps_offset": 0}


def _files(folder: Path) -> list[Path]:
    """Settings, vocabularies and weights in safetensors of a part.

    Raises:
        CheckpointError: there is no such part.
    """
    suffixes = (".json", ".txt", ".safetensors")
    found = sorted(path for path in folder.glob("*") if path.suffix in suffixes and path.is_file())
    if not found:
        raise CheckpointError(
            f"{folder}: there is no such part of the teacher",
            "the pipeline that was distilled, with vae, text_encoder and tokenizer",
            "restore it where method.teacher says",
        )
    return found


def teacher_folder(teacher: str, revision: str | None) -> Path:
    """The folder of a pipeline, fetched from the hub where it is none here.

    Raises:
        CheckpointError: it cannot be had.
    """
    path = Path(teacher).expanduser()
    if path.is_dir():
        return path
    from generative.hub.open_text_to_image import fetched

    patterns = [f"{name}/*{suffix}" for name in KEPT for suffix in (".json", ".txt", ".safetensors")]
    return fetched(teacher, revision, patterns, "restore the folder of method.teacher, or connect to the hub")


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
