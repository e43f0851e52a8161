"""Our transformer under the names of `transformers.LlamaForCausalLM`, which computes the same.

Llama is causal. A bidirectional network is what it computes when it is given an attention mask that hides nothing; its
embedding has a row more than its head, the mask token, so that the head gets one of zeros that is never to be drawn.

Both normalise by RMSNorm before each branch, rotate queries and keys in half-split form with theta_i = base^(-2i/h),
share key/value heads between neighbouring query heads, gate with SiLU, and have no biases and an untied head. Only two
matrices differ: ours are fused. Each of their parts is a block of rows, so one contiguous interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from torch import nn

from generative.errors import ConfigError
from generative.hub.tensors import SavedTensor, Source, WithZeros
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig

HEAD = "head.weight"
_OUTER = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    HEAD: "lm_head.weight",
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
        ConfigError: it is another network, or one of the two has a mask token that the other has not.
    """
    if not isinstance(module, Transformer):
        found = f"a {type(module).__name__}, which Llama is not"
    elif module.config.family != "llama":
        found = f"a transformer of the family {module.config.family}"
    elif module.causal and has_mask_row(module):
        found = "a causal transformer with a mask token"
    elif not module.causal and not has_mask_row(module):
        found = "a bidirectional transformer without a mask token"
    else:
        return module.config
    raise ConfigError(
        f"--layout llama: the network is {found}",
        "a network of the method autoregressive or masked_diffusion",
        "leave out --layout: the layout `generative` holds any network",
    )


def has_mask_row(module: nn.Module) -> bool:
    """Whether a transformer's embedding has the mask token."""
    return isinstance(module, Transformer) and module.embedding.num_embeddings != module.config.padded_vocab


def llama_tensors(
    tensors: Sequence[SavedTensor], source: Source, sizes: TransformerConfig, mask_row: bool = False
) -> tuple[list[SavedTensor], Source]:
    """The same weights under Llama's names, the fused matrices in parts, and where they are then read."""
    found = [part for tensor in tensors for part in _renamed(tensor, sizes)]
    if not mask_row:
        return found, source
    head = next(tensor for tensor in tensors if tensor.name == HEAD)
    longer = replace(head, name=_OUTER[HEAD], shape=(head.shape[0] + 1, *head.shape[1:]))
    source = WithZeros(source, head.source, head.start + head.numel)
    return [longer if tensor.name == longer.name else tensor for tensor in found], source


def _renamed(tensor: SavedTensor, sizes: TransformerConfig) -> Iterator[SavedTensor]:
    parts = llama_parts(tensor.name, tensor.shape[0], sizes)
    for (name, count), end in zip(parts.items(), accumulate(parts.values()), strict=True):
        yield tensor.rows(name, end - count, count)


def llama_parts(name: str, rows: int, sizes: TransformerConfig) -> dict[str, int]:
    """Llama's names for one of our weights of so many rows, and how many each has, in their order."""
    if name in _OUTER:
        return {_OUTER[name]: rows}
    _, number, inner = name.split(".", 2)
    block = f"model.layers.{number}"
    if inner in _INNER:
        return {f"{block}.{_INNER[inner]}": rows}
    return {f"{block}.{part}.weight": count for part, count in _fused(sizes)[inner].items()}


def _fused(sizes: TransformerConfig) -> dict[str, dict[str, int]]:
    """Rows of each part of the fused matrices, in their order."""
    queries, keys = sizes.heads * sizes.head_width, sizes.groups * sizes.head_width
    return {
        "attention.qkv.weight": {"self_attn.q_proj": queries, "self_attn.k_proj": keys, "self_attn.v_proj": keys},
        "feed_forward.gate_up.weight": {"mlp.gate_proj": sizes.ff_width, "mlp.up_proj": sizes.ff_width},
    }


def llama_config(sizes: TransformerConfig, eos_id: int | None, mask_row: bool = False) -> dict[str, Any]:
    """config.json of a LlamaForCausalLM; `eos_id` both begins and ends a document.

    With a mask token: `mask_token_id`, and `text_vocab_size`, from which on ids are none of a text.
    """
    masking = {"mask_token_id": sizes.padded_vocab, "text_vocab_size": sizes.vocab_size}
    return {
        **(masking if mask_row else {}),
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": sizes.padded_vocab + mask_row,
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
