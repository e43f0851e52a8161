"""The changes of a fine-tuned transformer alone, in the files of peft, for the base in the layout of Llama.

Ours change fused matrices: A is shared by queries, keys and values (or gate and up), and B has a block of rows for each
part. peft's layers are Llama's, so that each of them gets all of A and its own rows of B.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from generative.errors import ConfigError
from generative.hub.llama import llama_parts
from generative.nets.lora import DOWN, UP, changed_layers
from generative.nets.lora_config import FineTuningConfig
from generative.nets.transformer_config import TransformerConfig

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."


def check_adapter(config: FineTuningConfig | None) -> FineTuningConfig:
    """Whether a model has changes, and nothing else, beside its base; raises ConfigError."""
    if config is not None and not config.whole:
        return config
    raise ConfigError(
        "--layout peft: the run trained all weights"
        if config is None
        else f"--layout peft: the run trained {', '.join(config.whole)} beside its changes",
        "a run with method.lora, and without method.lora.whole",
        "leave out --layout: the weights are then exported whole, changes merged into them",
    )


def adapter_tensors(weights: Mapping[str, Tensor], sizes: TransformerConfig) -> dict[str, Tensor]:
    """Weights with changes (our names) -> the changes alone (peft's names)."""
    found: dict[str, Tensor] = {}
    for layer in changed_layers(weights):
        down, up, row = weights[layer + DOWN], weights[layer + UP], 0
        for name, rows in llama_parts(f"{layer}.weight", up.shape[0], sizes).items():
            place = _PREFIX + name.removesuffix(".weight")
            found[f"{place}.lora_A.weight"] = down.clone()
            found[f"{place}.lora_B.weight"] = up[row : row + rows].clone()
            row += rows
    return found


def adapter_config(tensors: Mapping[str, Tensor], config: FineTuningConfig, base: str | None) -> dict[str, Any]:
    """adapter_config.json; `base` is where the run's first weights came from."""
    names = {name.removeprefix(_PREFIX).split(".lora_")[0] for name in tensors}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted(names),
    }
