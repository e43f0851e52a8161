"""Configuration of masked diffusion."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from generative.config import Config
from generative.config_messages import combination
from generative.nets.lora_config import FineTuningConfig
from generative.nets.transformer_config import TransformerConfig

TimeSampler = Literal["iid", "stratified", "exact"]
ScheduleName = Literal["linear", "cosine", "loglinear"]


SamplerName = Literal["ancestral", "first_hitting", "random", "confidence", "margin", "entropy"]
CountName = Literal["schedule", "rounded", "even", "threshold"]
CacheName = Literal["none", "prefix", "dual", "exact"]


class SamplingConfig(Config):
    """How samples are drawn from the trained model (paper, section 5): order x count x tokens x guidance."""

    name: SamplerName = "ancestral"
    """Which positions come first. ancestral: each at a random time; first_hitting: the same without steps in time, one
    token a call; random: so many at random; confidence, margin, entropy: the most probable predictions, those that lead
    the second most probable by most, and the least uncertain."""
    count: CountName = "schedule"
    """How many a step (not for ancestral and first_hitting). schedule: int(masked x chance of the noise schedule);
    rounded: to the nearest number; even: the same number in each step; threshold: all whose score reaches `threshold`,
    and at least one."""
    threshold: float = 0.9
    """Of count=threshold: a probability for confidence, a difference for margin, minus nats for entropy."""
    steps: int = Field(64, ge=1)
    """Steps from fully masked to clean, shared out over the blocks. Fewer steps commit more tokens at a time,
    independently of each other. first_hitting and threshold take as many as they need."""
    order_temperature: float = Field(0.0, ge=0.0)
    """Noise on the order of confidence, margin and entropy; 0: none."""
    temperature: float = Field(1.0, ge=0.0)
    """Softmax temperature of the token draws; 0 takes the most probable token."""
    top_k: int | None = Field(None, ge=1)
    """Tokens are drawn from so many of the most probable only; null: from all."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Tokens are drawn from the nucleus of this probability only; 1: from all."""
    guidance: float = Field(0.0, ge=0.0)
    """Classifier-free guidance scale w (0: none); doubles the network's work."""
    token_noise: Literal["inverse_cdf", "gumbel"] = "inverse_cdf"
    """inverse_cdf: one uniform a token; gumbel: one a token and vocabulary entry, as in the released code."""
    block_length: int | None = Field(None, ge=1)
    """So many masked tokens are filled before the next ones (semi-autoregressive); null: all together. Models trained
    by block diffusion take the blocks of training."""
    cache: CacheName = "none"
    """Keys and values that are kept from a block's first call on. exact: of the blocks before, for models trained by
    block diffusion; prefix: of what stands before the block; dual: of all outside of it. The last two approximate."""
    stop_at_eos: bool = False
    """A sample ends at the first end of text that it generates, and what is masked after it is filled with that."""
    forbidden_ids: list[int] = []
    """Token ids that are never drawn (a mask token that the head has a row for; the end of text, for long answers)."""
    batch_coupled: bool = False
    """Count and rank over the whole batch, as the released code does: results depend on the batch."""

    @model_validator(mode="after")
    def _consistent(self) -> SamplingConfig:
        if self.count == "threshold" and self.name not in ("confidence", "margin", "entropy"):
            raise combination(
                f"count=threshold with name={self.name}, which scores nothing",
                "name=confidence, margin or entropy",
                "set method.sampling.name=confidence",
            )
        if self.count == "threshold" and self.name == "entropy" and self.threshold > 0.0:
            raise combination(
                f"threshold={self.threshold:g} with name=entropy, whose scores are minus nats and so at most 0",
                "a threshold of 0 or below, as -0.3",
                "set method.sampling.threshold=-0.3, or method.sampling.name=confidence",
            )
        if self.batch_coupled and (self.count != "schedule" or self.block_length or self.cache != "none"):
            raise combination(
                "batch_coupled=true with blocks, a cache or another count",
                "count=schedule, without blocks and caches, as in the released code",
                "leave batch_coupled out",
            )
        return self


class AnswerConfig(Config):
    """How prompts with responses are learned (data.name=pairs)."""

    noise_prompts: bool = False
    """Learn prompts like all else (reverse curse); false: they are given, and responses alone are learned."""
    prompt_dropping: float = Field(0.0, ge=0.0, le=1.0)
    """Share of the samples whose prompt is hidden, for supervised guidance (0.1 published)."""
    normalisation: Literal["tokens", "answers"] = "tokens"
    """Divide by all answer tokens, ends of text included (paper), or each answer by its own (LLaDA)."""

    @model_validator(mode="after")
    def _consistent(self) -> AnswerConfig:
        if self.noise_prompts and (self.prompt_dropping > 0.0 or self.normalisation != "tokens"):
            raise combination(
                f"noise_prompts=true with prompt_dropping={self.prompt_dropping:g} and "
                f"normalisation={self.normalisation}, which are for prompts that are given",
                "prompt_dropping=0 and normalisation=tokens where prompts are learned like all else",
                "set method.answers.noise_prompts=false, or leave the other two out",
            )
        return self


class MaskedDiffusionConfig(Config):
    """Masked diffusion language model (arXiv 2410.18514): a bidirectional transformer that fills in masked tokens."""

    name: Literal["masked_diffusion"] = "masked_diffusion"
    """Picks this method."""
    network: TransformerConfig = TransformerConfig()
    """Size and numerics of the network."""
    time_sampler: TimeSampler = "stratified"
    """Masking levels of a global batch: iid (paper); stratified: spread evenly, each token masked independently;
    exact: spread evenly, an exact number of tokens masked."""
    schedule: ScheduleName = "linear"
    """Noise schedule (linear in the paper). `exact` has no time and takes linear only."""
    epsilon: float = Field(1e-3, ge=0.0, lt=1.0)
    """Smallest time: t = (1 - epsilon) u + epsilon, so that weights 1/p stay below 1/epsilon. `exact` has no time: its
    weights are at most the number of tokens."""
    random_length_ratio: float = Field(0.0, ge=0.0, le=1.0)
    """Share of the samples that are cut to a length drawn uniformly from 1 .. sequence length (0.01 published).
    Not of samples with prompts that are given."""
    block_size: int | None = Field(None, ge=1)
    """Block diffusion (BD3LM): blocks of so many tokens, each given clean blocks before it; doubles the network's
    input. 1 is an autoregressive model, null diffusion over the whole window."""
    block_times: Literal["block", "sequence"] = "block"
    """With `block_size`: a masking level for each block, or one for the sequence (same mean, noisier)."""
    shift: bool = False
    """The output at position i - 1 predicts token i: for weights that began as an autoregressive model's."""
    answers: AnswerConfig = AnswerConfig()
    """Of data that has prompts and responses."""
    sampling: SamplingConfig = SamplingConfig()
    """Default settings of the sampler."""
    lora: FineTuningConfig | None = None
    """Train changes of low rank to the weights of `init_from`, which are frozen; null: train all weights."""
    ema: list[float] = []
    """Decay rates of the weight averages to keep, each in (0, 1)."""
    init_from: str | None = None
    """Start from a run folder, checkpoint or export, optionally followed by "#NAME" of a network in it."""

    @model_validator(mode="after")
    def _consistent(self) -> MaskedDiffusionConfig:
        if self.time_sampler == "exact" and self.schedule != "linear":
            raise combination(
                f"time_sampler=exact draws counts uniformly and cannot follow schedule={self.schedule}",
                "schedule=linear with time_sampler=exact",
                "set method.schedule=linear, or method.time_sampler=stratified",
            )
        if self.block_size is not None and self.random_length_ratio > 0.0:
            raise combination(
                f"random_length_ratio={self.random_length_ratio} with block_size={self.block_size}",
                "whole sequences, of whose blocks the model learns all prefixes anyway",
                "set method.random_length_ratio=0",
            )
        if self.block_size is not None and self.shift:
            raise combination(
                f"shift=true with block_size={self.block_size}: the first token of a block would be predicted by an "
                "output that does not see the block before it",
                "one of the two",
                "set method.shift=false, or leave out method.block_size",
            )
        if not all(0.0 < decay < 1.0 for decay in self.ema):
            raise combination(f"ema={self.ema}", "decay rates above 0 and below 1", "correct method.ema")
        return self
