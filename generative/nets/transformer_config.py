"""Sizes and numerics of the transformer. Free of torch, so that configurations load quickly."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt, model_validator

from generative.config import Config
from generative.config_messages import combination
from generative.errors import ConfigError


class TransformerConfig(Config):
    """Size and numerics of the network. `configs/sizes` holds the published sizes (6m ... 2121m)."""

    family: Literal["llama", "mdlm"] = "llama"
    """llama: RMSNorm and SwiGLU without biases (SMDM, LLaDA); mdlm: MDLM's blocks, for its published weights."""
    layers: PositiveInt = 4
    """Number of blocks."""
    heads: PositiveInt = 4
    """Query heads H; must divide `width` into heads of an even number of features."""
    width: PositiveInt = 256
    """Features d of the residual stream."""
    ff_width: PositiveInt = 1024
    """Hidden features of the SwiGLU feed-forward, 4 x width in most published sizes."""
    kv_groups: PositiveInt | None = None
    """Key/value heads G, a divisor of `heads`; None: one for each query head."""
    vocab_size: PositiveInt | None = None
    """Number of token ids; None: taken from the data."""
    padding_multiple: PositiveInt = 64
    """The vocabulary is padded to a multiple of this; the mask token comes after the padding."""
    max_length: PositiveInt = 2048
    """Longest sequence that the network accepts."""
    rope_base: float = 1e4
    """Base of the rotary angles: theta_i = base^(-2i/h)."""
    rope_table_dtype: Literal["fp32", "bf16"] = "fp32"
    """bf16 rounds the rotary cos/sin tables as the released code does (bit-closer to published weights)."""
    norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""
    base_width: PositiveInt | None = None
    """muP: the width at which learning rates were tuned; the embedding's initial weights are those of that width, the
    head's are zero. `train.optimizer.rates` belongs to it (`evaluation.scaling.rules:mup_rates`). null: no muP."""

    @model_validator(mode="after")
    def _consistent(self) -> TransformerConfig:
        if self.width % (2 * self.heads):
            raise combination(
                f"width {self.width} cannot be split over {self.heads} heads of an even number of features",
                f"width as a multiple of 2 x heads = {2 * self.heads}",
                f"set width={-(-self.width // (2 * self.heads)) * 2 * self.heads}, or other heads",
            )
        if self.base_width is not None and self.family == "mdlm":
            raise combination(
                "base_width with family=mdlm, whose blocks have no muP", "family=llama", "leave base_width out"
            )
        if self.kv_groups is not None and self.heads % self.kv_groups:
            raise combination(
                f"kv_groups={self.kv_groups} does not divide heads={self.heads}",
                "the same number of query heads in each group",
                "set kv_groups to a divisor of heads, or to null for one group for each head",
            )
        return self

    @property
    def groups(self) -> int:
        """Number of key/value heads G."""
        return self.kv_groups or self.heads

    @property
    def head_width(self) -> int:
        """Features h of one head."""
        return self.width // self.heads

    @property
    def padded_vocab(self) -> int:
        """Rows V of the head; also the id of the mask token where there is one.

        Raises:
            ConfigError: vocab_size is not set, and the data do not tell it.
        """
        if self.vocab_size is None:
            raise ConfigError(
                "method.network.vocab_size: not set, and the data does not say it",
                expected="the number of token ids",
                remedy="set method.network.vocab_size or use a data source with a tokenizer",
            )
        return -(-self.vocab_size // self.padding_multiple) * self.padding_multiple


def fit_to_data(config: TransformerConfig, vocab_size: int | None, sequence_length: int | None) -> TransformerConfig:
    """The configuration with the data's vocabulary where it has none of its own.

    Raises:
        ConfigError: the data has more token ids, or longer sequences, than the network is configured for.
    """
    if sequence_length is not None and sequence_length > config.max_length:
        raise ConfigError(
            f"data.sequence_length: {sequence_length} is longer than the network's {config.max_length}",
            expected=f"at most method.network.max_length = {config.max_length}",
            remedy="shorten data.sequence_length or raise method.network.max_length",
        )
    if vocab_size is None:
        return config
    if config.vocab_size is None:
        return config.model_copy(update={"vocab_size": vocab_size})
    if vocab_size > config.vocab_size:
        raise ConfigError(
            f"method.network.vocab_size: {config.vocab_size} is smaller than the tokenizer's {vocab_size}",
            expected=f"at least {vocab_size}",
            remedy="leave method.network.vocab_size out, or set it to the tokenizer's size or more",
        )
    return config
