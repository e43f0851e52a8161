"""An exported masked diffusion model as a model of transformers that predicts masked tokens:

model = BidirectionalLlama.from_pretrained("models/mdm")
logits = model(ids).logits  # float[B, T, V + 1]; the mask id is model.config.mask_token_id

The weights are those of a plain LlamaForCausalLM. This class lets each token see all others, and never predicts the
mask, nor ids that only pad the vocabulary. `save_pretrained` and `push_to_hub` are those of transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM


class BidirectionalLlama(LlamaForCausalLM):  # type: ignore[misc]
    """Llama whose attention is not causal, with a mask token in the embedding's last row."""

    @classmethod
    def from_pretrained(cls, *places: Any, **options: Any) -> Any:
        """As that of transformers, but of safetensors only: pickles could run code."""
        return super().from_pretrained(*places, **{**options, "use_safetensors": True})

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **options: Any
    ) -> Any:
        """Predictions of each token given those around it.

        Args:
            input_ids: int64[B, T].
            attention_mask: [B, T], 0 where there is padding that is not to be seen; or a mask [B, 1, T, T] as Llama
                takes it.
            labels: int64[B, T], tokens to be predicted at their own place (-100: not asked for); the output's loss is
                then their mean cross-entropy.
            options: further ones of Llama; keys and values are never kept.
        """
        if attention_mask is None or attention_mask.ndim == 2:
            attention_mask = everything(input_ids, attention_mask, self.dtype)
        options = {**options, "use_cache": False}
        output = super().forward(input_ids, attention_mask=attention_mask, **options)
        output.logits[..., self.config.text_vocab_size :] = -torch.inf
        if labels is not None:
            output.loss = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1).float(), labels.flatten())
        return output


def everything(ids: Tensor, seen: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores, [B, 1, T, T]: nothing, but the lowest number for keys that are not seen."""
    B, T = ids.shape
    mask = torch.zeros(B, 1, T, T, dtype=dtype, device=ids.device)
    if seen is not None:
        mask.masked_fill_(~seen.bool()[:, None, None], torch.finfo(dtype).min)
    return mask
