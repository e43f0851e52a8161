"""State dicts under other names: each tensor is moved once, and what is left or lacking is told by its own name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from generative.errors import CheckpointError

SHOWN = 3
"""Names in a message."""


class Renaming:
    """Moves the layers of a network to the names that another program has for them.

    Args:
        source: state dict.
        where: of it, for messages.
    """

    def __init__(self, source: Mapping[str, Tensor], where: str) -> None:
        self.source, self.where = source, where
        self.found: dict[str, Tensor] = {}
        self._left = set(source)

    def has(self, layer: str) -> bool:
        """Whether there are tensors of a layer or block."""
        return any(name.startswith(f"{layer}.") for name in self.source)

    def count(self, blocks: str) -> int:
        """How many numbered blocks there are: 1 + the highest number after `blocks`."""
        start = f"{blocks}."
        numbers = [name.removeprefix(start).partition(".")[0] for name in self.source if name.startswith(start)]
        return 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)

    def tensor(self, name: str) -> Tensor:
        """One that must be there. Raises CheckpointError."""
        if name not in self.source:
            raise self.unfit(f"{name} is missing")
        return self.source[name]

    def take(self, name: str) -> Tensor:
        """One that is moved now. Raises CheckpointError: it is missing."""
        self._left.discard(name)
        return self.tensor(name)

    def layer(self, old: str, new: str, change: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> None:
        """Weight and (where there is one) bias. Raises CheckpointError: there is no weight."""
        self.found[f"{new}.weight"] = change(self.take(f"{old}.weight"))
        if f"{old}.bias" in self.source:
            self.found[f"{new}.bias"] = change(self.take(f"{old}.bias"))

    def layers(self, names: Mapping[str, str], old: str, new: str) -> None:
        """Several layers of a block, those that are there."""
        for theirs, ours in names.items():
            if self.has(f"{old}.{theirs}"):
                self.layer(f"{old}.{theirs}", f"{new}.{ours}")

    def finished(self, unused: Sequence[str] = ()) -> dict[str, Tensor]:
        """All that was moved.

        Args:
            unused: beginnings of names that may be left.

        Raises:
            CheckpointError: something else is left.
        """
        left = sorted(name for name in self._left if not name.startswith(tuple(unused)))
        if left:
            more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
            raise self.unfit(f"{', '.join(left[:SHOWN])}{more} {'is' if len(left) == 1 else 'are'} not known here")
        return self.found

    def unfit(self, problem: str) -> CheckpointError:
        """Of this state dict."""
        return CheckpointError(
            f"{self.where}: {problem}",
            "the names of the released networks (ADM: guided-diffusion; LDM: latent-diffusion)",
            "give the file as it was published, and --method adm or ldm as it is",
        )


def matrix(weight: Tensor) -> Tensor:
    """A pointwise convolution as the matrix that it is; biases as they are."""
    return weight.flatten(1) if weight.dim() > 1 else weight
