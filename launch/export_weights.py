"""Which tensors an export writes, and where it reads them: from the checkpoint, or made of what is in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from generative.hub.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_config, adapter_tensors, check_adapter
from generative.hub.card import render
from generative.hub.export import CARD, write_json
from generative.hub.files import write_files
from generative.hub.folder import appearing
from generative.hub.llama import llama_sizes
from generative.hub.tensors import DTYPES, InMemory, SavedTensor, Source, whole_tensors
from generative.nets.lora import merged
from generative.nets.lora_config import FineTuningConfig
from generative.training.networks import checkpoint_weights, weight_names
from launch.export_card import make_card

if TYPE_CHECKING:
    from launch.export import Asked, Subject


def changes_of(subject: Subject) -> FineTuningConfig | None:
    """Settings of the low-rank changes that the run trained; None: it trained its network as it is."""
    found = getattr(subject.config.method, "lora", None)
    return found if isinstance(found, FineTuningConfig) else None


def weights_of(subject: Subject, dtype: torch.dtype) -> tuple[Sequence[SavedTensor], Source]:
    """The network's tensors, of which changes of low rank are merged into the layers that they belong to."""
    changes = changes_of(subject)
    if changes is not None:
        return _in_memory(merged(_worn(subject), changes), dtype)
    if subject.afterwards is not None:
        return _in_memory(subject.afterwards.weights(subject.network), dtype)
    names = weight_names(subject.checkpoint, subject.network, subject.average)
    return whole_tensors(subject.checkpoint, names, dtype), cast("Source", subject.checkpoint)


def _worn(subject: Subject) -> Mapping[str, Tensor]:
    if subject.afterwards is not None:
        return subject.afterwards.weights(subject.network)
    return checkpoint_weights(subject.checkpoint, subject.network, subject.average)


def _in_memory(weights: Mapping[str, Tensor], dtype: torch.dtype) -> tuple[Sequence[SavedTensor], Source]:
    source = InMemory(weights)
    return [
        replace(tensor, dtype=dtype if tensor.dtype.is_floating_point else tensor.dtype) for tensor in source.saved()
    ], source


def export_adapter(subject: Subject, asked: Asked, target: Path) -> list[Path]:
    """Write the changes alone, for `peft.PeftModel.from_pretrained(base, folder)`; the base is `--layout llama` of the
    run or model that this one started from.

    Raises:
        ConfigError: the run trained something else.
        ResourceError: the disk is full or cannot be written; nothing is left behind.
    """
    changes, sizes = check_adapter(changes_of(subject)), llama_sizes(subject.module)
    tensors = {name: t.to(DTYPES[asked.dtype]) for name, t in adapter_tensors(_worn(subject), sizes).items()}
    with appearing(target, asked.force) as partial:
        source = InMemory(tensors)
        write_files(partial, {ADAPTER_WEIGHTS: source.saved()}, source)
        write_json(partial / ADAPTER_CONFIG, adapter_config(tensors, changes, None))
        (partial / CARD).write_text(render(make_card(subject, asked, target.name, None, [])), encoding="utf-8")
    return sorted(target.iterdir())
