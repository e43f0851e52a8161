"""Published weights against the names that their layout has: a report of all that is missing and surplus."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from generative.errors import CheckpointError

_MOST = 12


def check_names(found: Collection[str], wanted: Collection[str], layout: str, remedy: str) -> None:
    """Refuse weights that lack a tensor of the layout, or have one that it has not.

    Raises:
        CheckpointError: the message counts and lists both, up to twelve of each.
    """
    missing, surplus = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or surplus:
        told = [
            f"{len(names)} {kind}: {', '.join(names[:_MOST])}{' ...' if len(names) > _MOST else ''}"
            for kind, names in (("missing", missing), ("surplus", surplus))
            if names
        ]
        raise CheckpointError(f"tensors of the checkpoint do not fit: {'; '.join(told)}", layout, remedy)


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Weights without the words that all their names begin with, if they do."""
    if all(name.startswith(prefix) for name in state):
        return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return dict(state)


def of_config(values: Mapping[str, object], names: Collection[str], what: str) -> int:
    """A number in a config.json, under the first of several names that it has.

    Raises:
        CheckpointError: it has none of them, or no number there.
    """
    for name in names:
        value = values.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    raise CheckpointError(
        f"config.json does not tell {what}",
        f"a whole number above 0 under {' or '.join(names)}",
        "take the config.json that was published with the weights",
    )
