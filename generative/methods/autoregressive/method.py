"""Next-token prediction as the trainer sees it: one network, one update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from generative.method import Batch, Context, DataFacts, Likelihood, Loss, Networks, NetworkSpec, Update
from generative.methods.autoregressive.config import AutoregressiveConfig
from generative.methods.autoregressive.sampler import AutoregressiveSampler
from generative.nets.accounting import steps_for_flops, training_flops
from generative.nets.documents import first_places, positions_within, same_document
from generative.nets.lora import build_transformer
from generative.nets.transformer_config import TransformerConfig, fit_to_data
from generative.randomness import Streams


@dataclass(frozen=True)
class Autoregressive:
    """The baseline of arXiv 2410.18514. Batches hold tokens int64[B, T+1]; each of the last T is predicted."""

    config: AutoregressiveConfig
    facts: DataFacts

    @cached_property
    def network(self) -> TransformerConfig:
        """The network's sizes, completed by what the data says."""
        return fit_to_data(self.config.network, self.facts.vocab_size, self.facts.sequence_length)

    def networks(self) -> Mapping[str, NetworkSpec]:
        """One network, "net"."""
        build = partial(build_transformer, self.network, self.config.lora, causal=True, mask_row=False)
        return {"net": NetworkSpec(build, ema=tuple(self.config.ema), init_from=self.config.init_from)}

    def updates(self) -> Sequence[Update]:
        """One update, "next_token"."""
        return [Update("next_token", trains="net")]

    def divisor(self, update: Update, batch: Batch, context: Context) -> Tensor:
        """Predicted tokens of valid samples; of responses alone, where the data have prompts."""
        return _learned(batch).sum()

    def loss(self, update: Update, nets: Networks, batch: Batch, context: Context) -> Loss:
        """Sum of the cross-entropies of next tokens (nats)."""
        value, _ = _next_token(nets, batch["tokens"], _learned(batch).float(), batch.get("document"))
        return Loss(value)

    def likelihood(self, nets: Networks, draws: int = 1, estimator: str = "") -> Likelihood:
        """Exact -log p of the last T tokens of each window given the first; `draws` and `estimator` are not used.

        Where the data tell documents, each is read by itself, and the first token of each is given.
        """

        @torch.no_grad()
        def nats(batch: Batch, streams: Streams) -> Tensor:
            scored = _predicted(batch)
            _, nll = _next_token(nets, batch["tokens"], scored.float(), batch.get("document"))
            return nll.double().view(scored.shape).masked_fill(~scored, 0.0).sum(1)

        def tokens(batch: Batch) -> Tensor:
            return _predicted(batch).sum(1)

        return Likelihood(nats, "nll", None, "exact, left to right", given=1, tokens=tokens)

    def sampler(self, nets: Networks) -> AutoregressiveSampler:
        """Continues `condition["prompt"]` int64[B, P] to whole windows; see `AutoregressiveSampler`."""
        return AutoregressiveSampler(
            nets["net"],
            length=self.facts.sequence_length or self.network.max_length,
            vocab_size=self.network.vocab_size,
            temperature=self.config.sampling.temperature,
            top_k=self.config.sampling.top_k,
            top_p=self.config.sampling.top_p,
        )

    def state(self) -> Mapping[str, Tensor]:
        """None."""
        return {}

    def flops(self, batch: Batch) -> int:
        """Forward and backward; the head runs on all tokens."""
        B, T = batch["tokens"].shape[0], batch["tokens"].shape[1] - 1
        return B * training_flops(self.network, T, head_rows=T, causal=True)

    def steps_for_flops(self, flops: float, batch_size: int, sequence_length: int) -> int:
        """Training steps of a budget under C = 6 N D."""
        return steps_for_flops(self.network, flops, batch_size, sequence_length)


def _learned(batch: Batch) -> Tensor:
    """bool[B, T]: tokens of `_predicted` that count, those of prompts (prompt_length int64[B], if there are any) left
    out."""
    places = torch.arange(1, batch["tokens"].shape[1], device=batch["tokens"].device)
    prompt = batch.get("prompt_length", torch.zeros_like(batch["sample_id"]))
    return _predicted(batch) & batch["valid"][:, None] & (places >= prompt[:, None])


def _predicted(batch: Batch) -> Tensor:
    """bool[B, T]: all tokens but the first; and but that of each document (document int64[B, T+1], if the data tell),
    which nothing comes before."""
    if "document" in batch:
        return ~first_places(batch["document"])[:, 1:]
    return torch.ones_like(batch["tokens"][:, 1:], dtype=torch.bool)


def _next_token(
    nets: Networks, tokens: Tensor, weights: Tensor, document: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weighted sum and each of the B * T negative log-likelihoods. tokens and document [B, T+1], weights[B, T]."""
    options: dict[str, Tensor] = {}
    if document is not None:
        inputs = document[:, :-1]
        options = {"positions": positions_within(inputs), "visible": same_document(inputs, causal=True)}
    targets = tokens[:, 1:].flatten()
    rows = torch.arange(len(targets), device=tokens.device)
    result: tuple[Tensor, Tensor] = nets["net"](tokens[:, :-1], rows, targets, weights.flatten(), **options)
    return result
