"""Our causal transformer under the names of `transformers.LlamaForCausalLM`, which computes the same.

Both normalise by RMSNorm before each branch, rotate queries and keys in half-split form with theta_i = base^(-2i/h),
share key/value heads between neighbouring query heads, gate with SiLU, and have no biases and an untied head. Only two
matrices differ: ours are fused. Each of their parts is a block of rows, so one contiguous interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from torch import nn

from generative.errors import ConfigError
from generative.hub.tensors import SavedTensor
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig

_OUTER = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
_INNER = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.out.weight": "self_attn.o_proj.weight",
    "feed_forward_norm.weight": "post_attention_layernorm.weight",
    "feed_forward.down.weight": "mlp.down_proj.weight",
}


def llama_sizes(module: nn.Module) -> TransformerConfig:
    """Sizes of a network that Llama can stand for; it may be on the meta device.

    Raises:
        ConfigError: it is another network, or sees in both directions.
    """
    if not isinstance(module, Transformer):
        found = f"a {type(module).__name__}, which Llama is not"
    elif not module.causal:
        found = "a bidirectional transformer, and Llama sees only what came before"
    elif module.embedding.num_embeddings != module.config.padded_vocab:
        found = "a transformer with a mask token, which Llama has not"
    else:
        return module.config
    raise ConfigError(
        f"--layout llama: the network is {found}",
        "a network of the method autoregressive",
        "leave out --layout: the layout `generative` holds any network",
    )


def llama_tensors(tensors: Sequence[SavedTensor], sizes: TransformerConfig) -> list[SavedTensor]:
    """The same weights under Llama's names, the fused matrices in parts."""
    return [part for tensor in tensors for part in _renamed(tensor, sizes)]


def _renamed(tensor: SavedTensor, sizes: TransformerConfig) -> Iterator[SavedTensor]:
    rows = tensor.shape[0]
    if tensor.name in _OUTER:
        yield tensor.rows(_OUTER[tensor.name], 0, rows)
        return
    _, number, name = tensor.name.split(".", 2)
    block = f"model.layers.{number}"
    if name in _INNER:
        yield tensor.rows(f"{block}.{_INNER[name]}", 0, rows)
        return
    parts = _fused(sizes)[name]
    for (part, count), end in zip(parts.items(), accumulate(parts.values()), strict=True):
        yield tensor.rows(f"{block}.{part}.weight", end - count, count)


def _fused(sizes: TransformerConfig) -> dict[str, dict[str, int]]:
    """Rows of each part of the fused matrices, in their order."""
    queries, keys = sizes.heads * sizes.head_width, sizes.groups * sizes.head_width
    return {
        "attention.qkv.weight": {"self_attn.q_proj": queries, "self_attn.k_proj": keys, "self_attn.v_proj": keys},
        "feed_forward.gate_up.weight": {"mlp.gate_proj": sizes.ff_width, "mlp.up_proj": sizes.ff_width},
    }


def llama_config(sizes: TransformerConfig, eos_id: int | None) -> dict[str, Any]:
    """config.json of a LlamaForCausalLM; `eos_id` both begins and ends a document."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": sizes.padded_vocab,
        "hidden_size": sizes.width,
        "intermediate_size": sizes.ff_width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.groups,
        "head_dim": sizes.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": sizes.max_length,
        "rms_norm_eps": sizes.norm_eps,
        # transformers reads rope_parameters from version 5 on, rope_theta before.
        "rope_theta": sizes.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": sizes.rope_base},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": eos_id,
        "eos_token_id": eos_id,
        "pad_token_id": None,
    }


def generation_config(sizes: TransformerConfig, eos_id: int | None) -> dict[str, Any]:
    """generation_config.json: `generate` never draws the ids that only pad the vocabulary."""
    padding = list(range(sizes.vocab_size or sizes.padded_vocab, sizes.padded_vocab))
    return {"bos_token_id": eos_id, "eos_token_id": eos_id, **({"suppress_tokens": padding} if padding else {})}


def llama_notes(sizes: TransformerConfig) -> list[str]:
    """Where Llama does not compute exactly the same."""
    if sizes.rope_table_dtype == "fp32":
        return []
    return [
        "this network rounds its rotary tables to bfloat16 (method.network.rope_table_dtype); "
        "in fp32 Llama does not, so logits differ slightly"
    ]
