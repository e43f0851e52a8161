"""Masked diffusion as the trainer sees it: one network, one update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from generative.method import Batch, Context, DataFacts, Likelihood, Loss, Networks, NetworkSpec, Update
from generative.methods.masked_diffusion.answers import Answers, divisor_of, mask_answers
from generative.methods.masked_diffusion.canvas import Observer, Sampled
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.methods.masked_diffusion.denoiser import Denoiser
from generative.methods.masked_diffusion.documents import documents_of
from generative.methods.masked_diffusion.form import NetworkForm
from generative.methods.masked_diffusion.likelihood import EstimatorName, Scorer, estimate, weighted_nll
from generative.methods.masked_diffusion.losses import draw_lengths, draw_masking, masked_cross_entropy
from generative.methods.masked_diffusion.noise import SCHEDULES, mask_exactly
from generative.methods.masked_diffusion.sampling import check_settings, draw
from generative.nets.accounting import steps_for_flops, training_flops
from generative.nets.lora import build_transformer
from generative.nets.transformer_config import TransformerConfig, fit_to_data
from generative.randomness import Streams


@dataclass(frozen=True)
class MaskedDiffusion:
    """The method of arXiv 2410.18514 for token windows.

    Batches hold tokens int64[B, T+1]; the last token is dropped, so that windows are the autoregressive baseline's.
    With document int64[B, T+1] each document of a window is learned by itself (data.separate_documents).
    """

    config: MaskedDiffusionConfig
    facts: DataFacts

    @cached_property
    def network(self) -> TransformerConfig:
        """The network's sizes, completed by what the data says."""
        return fit_to_data(self.config.network, self.facts.vocab_size, self.facts.sequence_length)

    @cached_property
    def mask_id(self) -> int:
        """Id of the mask token: the first after the padded vocabulary."""
        return self.network.padded_vocab

    def networks(self) -> Mapping[str, NetworkSpec]:
        """One network, "net"."""
        build = partial(build_transformer, self.network, self.config.lora, causal=False, mask_row=True)
        return {"net": NetworkSpec(build, ema=tuple(self.config.ema), init_from=self.config.init_from)}

    def updates(self) -> Sequence[Update]:
        """One update, "denoise"."""
        return [Update("denoise", trains="net")]

    def divisor(self, update: Update, batch: Batch, context: Context) -> Tensor:
        """All tokens of valid samples, masked or not (after cutting, where lengths are random); of answers: theirs."""
        answers = self._answers(batch)
        if answers is not None:
            return divisor_of(self.config.answers, answers, batch["valid"])
        lengths = draw_lengths(self.config, batch, context)
        T = batch["tokens"].shape[1] - 1
        return (batch["valid"] * (T if lengths is None else lengths)).sum()

    def loss(self, update: Update, nets: Networks, batch: Batch, context: Context) -> Loss:
        """Sum over masked tokens of weight x cross-entropy (nats)."""
        answers, hidden = self._answers(batch), None
        lengths = draw_lengths(self.config, batch, context) if answers is None else None
        masking = draw_masking(self.config, batch, context, lengths)
        if answers is not None:
            masking, hidden = mask_answers(self.config.answers, answers, masking, batch, context)
        ids, valid = batch["tokens"][:, :-1], batch["valid"]
        value, metrics = masked_cross_entropy(
            nets["net"], ids, masking, self.mask_id, valid, lengths, self.form, hidden, documents_of(batch, lengths)
        )
        return Loss(value, metrics)

    def _answers(self, batch: Batch) -> Answers | None:
        return None if self.config.answers.noise_prompts else Answers.of(batch)

    @property
    def form(self) -> NetworkForm:
        """Blocks and shift."""
        return NetworkForm(self.config.block_size, self.config.shift)

    def denoiser(self, nets: Networks) -> Denoiser:
        """The network as a predictor of masked tokens, with the configured guidance."""
        sampling, forbidden = self.config.sampling, tuple(self.config.sampling.forbidden_ids)
        return Denoiser(nets["net"], self.mask_id, self.network.vocab_size, sampling.guidance, self.form, forbidden)

    def sampler(self, nets: Networks) -> MaskedDiffusionSampler:
        """Fills `condition["canvas"]` int64[B, T] (mask ids anywhere), or all-masked windows where there is none."""
        return MaskedDiffusionSampler(self, nets)

    def check_sampling(self, wanted: Tensor) -> None:
        """Refuse sampler settings that cannot fill canvases masked at bool[B, T]; no network. Raises ConfigError."""
        check_settings(self.config.sampling, self.denoiser({"net": nn.Identity()}), wanted)

    def likelihood(self, nets: Networks, draws: int = 16, estimator: EstimatorName = "exact_count") -> Likelihood:
        """Bound on -log p of each window with `draws` evaluations a window, or the chain rule's exact figure."""

        def nats(batch: Batch, streams: Streams) -> Tensor:
            everything = torch.ones_like(batch["tokens"][:, :-1], dtype=torch.bool)
            return self.span_likelihood(nets, draws, estimator)(batch, ~everything, everything, streams)

        if estimator == "chain_rule":
            return Likelihood(nats, "nll_left_to_right", None, "chain rule, left to right")
        how = "exact-count masks in" if estimator == "exact_count" else "independent masks at times in"
        return Likelihood(nats, "elbo", "upper", f"{how} {draws} strata")

    def _scorer(self, nets: Networks, batch: Batch) -> Scorer:
        return Scorer(Denoiser(nets["net"], self.mask_id, form=self.form), documents_of(batch, None))

    def span_likelihood(
        self, nets: Networks, draws: int = 16, estimator: EstimatorName = "exact_count"
    ) -> Callable[[Batch, Tensor, Tensor, Streams], Tensor]:
        """Bound on -log p(span | visible tokens) of each window in nats; tokens that are neither are masked throughout.

        The function takes (batch, visible bool[B, T], span bool[B, T], streams) and gives float64[B].
        """

        def nats(batch: Batch, visible: Tensor, span: Tensor, streams: Streams) -> Tensor:
            score = self._scorer(nets, batch)
            ids = batch["tokens"][:, :-1].masked_fill(~(visible | span), self.mask_id)
            return estimate(estimator, score, ids, span, streams, batch["sample_id"], draws)

        return nats

    def noise_profile(self, nets: Networks, levels: Sequence[float]) -> Callable[[Batch, Streams], Tensor]:
        """Nats per masked token, float64[B, K], where exactly round(level * T) tokens of a window are masked (>= 1)."""

        def nats(batch: Batch, streams: Streams) -> Tensor:
            score = self._scorer(nets, batch)
            ids = batch["tokens"][:, :-1]
            whole = torch.full_like(batch["sample_id"], ids.shape[1])
            everything = torch.ones_like(ids, dtype=torch.bool)
            columns = []
            for column, level in enumerate(levels):
                counts = (level * whole).round().long().clamp(min=1)
                mask = mask_exactly(
                    streams.at(column).uniform("mask", batch["sample_id"], ids.shape[1:]), counts, whole
                )
                columns.append(weighted_nll(score, ids, mask, 1 / counts, everything))
            return torch.stack(columns, dim=1)

        return nats

    def state(self) -> Mapping[str, Tensor]:
        """None."""
        return {}

    def flops(self, batch: Batch) -> int:
        """Forward and backward; the head runs on the masked half of the tokens (blocks: of the noisy ones of 2T)."""
        B, T = batch["tokens"].shape[0], batch["tokens"].shape[1] - 1
        places = T if self.config.block_size is None else 2 * T
        return B * training_flops(self.network, places, head_rows=T / 2, causal=False)

    def steps_for_flops(self, flops: float, batch_size: int, sequence_length: int) -> int:
        """Training steps of a budget under C = 6 N D, with the mean length of random-length training."""
        ratio = self.config.random_length_ratio
        average = sequence_length * (1 - ratio) + ratio * (1 + sequence_length) / 2
        return steps_for_flops(self.network, flops, batch_size, average)


@dataclass(frozen=True)
class MaskedDiffusionSampler:
    """Draws by the method's settings; `draw` tells more than the tokens. `eos_id` ends a sample where settings say."""

    method: MaskedDiffusion
    nets: Networks
    eos_id: int | None = None

    def __call__(self, condition: Batch, streams: Streams) -> Tensor:
        """Finished canvases int64[B, T]; see `draw`."""
        return self.draw(condition, streams).tokens

    def draw(self, condition: Batch, streams: Streams, observer: Observer | None = None) -> Sampled:
        """Fill condition["canvas"] int64[B, T]; without one, draw whole windows for condition["sample_id"] int64[B]."""
        sample_id, config = condition["sample_id"], self.method.config
        canvas = condition.get("canvas")
        if canvas is None:
            shape = (len(sample_id), self._length())
            canvas = torch.full(shape, self.method.mask_id, dtype=torch.int64, device=sample_id.device)
        denoiser = self.method.denoiser(self.nets)
        return draw(
            config.sampling, denoiser, canvas, sample_id, streams, SCHEDULES[config.schedule], observer, self.eos_id
        )

    def _length(self) -> int:
        return self.method.facts.sequence_length or self.method.network.max_length
