"""Whether token ids are those of a network."""

from __future__ import annotations

from torch import Tensor

from generative.errors import ConfigError


def check_ids(ids: Tensor, vocab_size: int | None) -> None:
    """Refuse ids int64[...] below 0, or from `vocab_size` on (None: no limit is known).

    Raises:
        ConfigError: with the first such id.
    """
    wrong = (ids < 0) if vocab_size is None else (ids < 0) | (ids >= vocab_size)
    if wrong.any():
        known = "ids from 0 on" if vocab_size is None else f"ids from 0 to {vocab_size - 1}, the model's vocabulary"
        raise ConfigError(
            f"the token id {int(ids[wrong][0])} in a prompt or canvas, which the model does not know",
            known,
            "encode the text with the tokenizer that the model was trained with",
        )
