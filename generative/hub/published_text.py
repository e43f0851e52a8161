"""Published language models: SMDM's and its autoregressive baseline's files, LLaDA's and MDLM's folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from generative.errors import CheckpointError
from generative.hub.legacy import read_state_dict
from generative.hub.published_model import Published
from generative.method import DataFacts
from generative.methods.autoregressive import convert as autoregressive_convert
from generative.methods.autoregressive.config import AutoregressiveConfig
from generative.methods.masked_diffusion import convert as masked_diffusion_convert
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.nets.layouts import without_prefix
from generative.nets.llada_layout import PREFIX, from_llada, llada_config
from generative.nets.mdlm_layout import from_mdlm, mdlm_config
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig

CONFIG = "config.json"


def masked_diffusion(paths: Sequence[Path]) -> Published:
    """A file of SMDM."""
    network, state = masked_diffusion_convert.import_checkpoint(paths[0])
    return _masked_model(network, state)


def _masked_model(network: TransformerConfig, state: Mapping[str, Tensor], **settings: Any) -> Published:
    build = {"net": lambda: Transformer(network, causal=False, mask_row=True)}
    facts = DataFacts(network.vocab_size, network.max_length)
    method = MaskedDiffusionConfig(network=network, **settings)
    return Published(method, facts, {"net": state}, build, "text-generation")


def llada(paths: Sequence[Path]) -> Published:
    """A folder of LLaDA."""
    values, state = read_folder(paths)
    embedding = without_prefix(state, PREFIX).get("wte.weight")
    network, mask = llada_config(values, 1 << 62 if embedding is None else len(embedding))
    # Their head has a row for the mask token, which must never be drawn.
    return _masked_model(network, from_llada(state, network, mask), sampling={"forbidden_ids": [mask]})


def mdlm(paths: Sequence[Path]) -> Published:
    """A folder of MDLM, without time conditioning."""
    values, state = read_folder(paths)
    network = mdlm_config(values, state)
    return _masked_model(network, from_mdlm(state, network), schedule="loglinear")


def read_folder(paths: Sequence[Path]) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """config.json, and the tensors of all other files.

    Raises:
        CheckpointError: one of them cannot be read, or a tensor is in two of them.
    """
    described = next((path for path in paths if path.name == CONFIG), None)
    if described is None:
        raise CheckpointError(f"no {CONFIG} beside the weights", "that of the publisher", "add it to the folder")
    try:
        values = json.loads(described.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{described} cannot be read: {error}", "a JSON object", "download it again") from error
    state: dict[str, Tensor] = {}
    for path in paths:
        if path != described:
            found = read_state_dict(path)
            if twice := sorted(state.keys() & found.keys()):
                raise CheckpointError(
                    f"{path} has tensors that another file has too: {', '.join(twice[:3])}",
                    "each tensor once",
                    "take the files of one model only",
                )
            state |= found
    return values if isinstance(values, dict) else {}, state


def autoregressive(paths: Sequence[Path]) -> Published:
    """A file of SMDM's autoregressive baseline."""
    network, state = autoregressive_convert.import_checkpoint(paths[0])
    build = {"net": lambda: Transformer(network, causal=True, mask_row=False)}
    facts = DataFacts(network.vocab_size, network.max_length)
    return Published(AutoregressiveConfig(network=network), facts, {"net": state}, build, "text-generation")
