from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from generative.method import Batch, Context
from generative.nets.smdm_layout import from_smdm
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig
from generative.randomness import Streams

GOLDEN = Path(__file__).parents[2] / "golden" / "masked_diffusion_lm"


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Any]]:
    """Arrays of a golden file as tensors (names as numpy arrays)."""

    def load(name: str) -> dict[str, Any]:
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            return {k: torch.tensor(v) if v.dtype.kind != "U" else v for k, v in arrays.items()}

    return load


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Transformer]:
    """The small golden networks: "mdm" or "arm", with fp32 or bf16 rotary tables."""

    def build(kind: str = "mdm", rope: str = "fp32") -> Transformer:
        config = TransformerConfig(
            layers=2, heads=4, width=64, ff_width=128, vocab_size=64, max_length=64, rope_table_dtype=rope
        )
        net = Transformer(config, causal=kind == "arm", mask_row=kind == "mdm")
        net.load_state_dict(from_smdm(load_file(GOLDEN / f"tiny_{kind}.safetensors"), config))
        return net.eval()

    return build


@pytest.fixture(scope="session")
def shakespeare() -> Transformer:
    """A really trained character model: 65 characters, 64 positions."""
    config = TransformerConfig(
        layers=3, heads=4, width=64, ff_width=256, vocab_size=65, max_length=64, padding_multiple=1
    )
    net = Transformer(config, causal=False, mask_row=True)
    state = from_smdm(load_file(GOLDEN / "shakespeare_mdm_bf16.safetensors"), config)
    net.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return net.eval()


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """A batch of random windows, or of given ones, as the loader would hand it out."""

    def make(tokens: torch.Tensor | None = None, *, size: int = 4, length: int = 12, vocab: int = 64) -> Batch:
        if tokens is None:
            tokens = torch.randint(0, vocab, (size, length + 1), generator=torch.Generator().manual_seed(1))
        places = torch.arange(len(tokens))
        return {"tokens": tokens, "sample_id": places, "position": places, "valid": torch.ones(len(tokens)).bool()}

    return make


@pytest.fixture
def context() -> Callable[..., Context]:
    def make(global_batch: int, step: int = 0, seed: int = 3) -> Context:
        return Context(step=step, streams=Streams(seed, step), global_batch=global_batch)

    return make
