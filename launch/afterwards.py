"""Averages of any width, made after the training of the power-function averages in a run's checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from generative.errors import CheckpointError, ConfigError
from generative.training.checkpoint import Checkpoint
from generative.training.checkpoint.format import step_folder
from generative.training.checkpoint.rotation import complete_steps
from generative.training.ema import WIDEST, power_exponent
from generative.training.post_hoc import (
    Profile,
    post_hoc_average,
    post_hoc_weights,
    profile_error,
    profiles_in,
)

POWER = "power="
"""Begins the name of such weights: "power=0.15"."""

FAR = 0.05
"""Relative distance of a profile from the wanted one above which the average is not given."""


def asked_width(weights: str) -> float | None:
    """sigma_rel of "power=0.15"; None for weights of another kind.

    Raises:
        ConfigError: no number above 0 and at most 0.28.
    """
    if not weights.startswith(POWER):
        return None
    try:
        width = float(weights.removeprefix(POWER))
    except ValueError:
        width = 0.0
    if not 0 < width <= WIDEST:
        raise ConfigError(
            f"weights {weights}: not a relative width of an average",
            f"power= and a number above 0 and at most {WIDEST} (a plain mean over all steps has 0.289)",
            "give, say, power=0.1",
        )
    return width


@dataclass(frozen=True)
class Afterwards:
    """The average of a width at the step of a checkpoint, by least squares over profiles (Karras et al. 2024, 3.2).

    Args:
        checkpoints: of the run, up to that step.
        width: sigma_rel.
    """

    checkpoints: tuple[Checkpoint, ...]
    width: float

    @staticmethod
    def of(checkpoint: Checkpoint, width: float) -> Afterwards:
        """From all that the run has kept up to a checkpoint; files are checked against their hashes as they are read.

        Raises:
            CheckpointError: a checkpoint that is damaged.
        """
        folder = checkpoint.path.parent
        steps = [step for step in complete_steps(folder) if 0 < step <= checkpoint.step]
        return Afterwards(tuple(Checkpoint(folder / step_folder(step)) for step in steps), width)

    def weights(self, network: str) -> dict[str, Tensor]:
        """The state dict of a network.

        Raises:
            CheckpointError: no power-function averages, or too few for this width.
        """
        found = post_hoc_average(self.checkpoints, network, self.width)
        error, count = self._fit(network)
        if error > FAR:
            raise CheckpointError(
                f"an average of relative width {self.width:g} from {count} averages in {len(self.checkpoints)} "
                f"checkpoints: their profiles come no nearer to its own than {100 * error:.0f} %",
                f"{100 * FAR:.0f} % or less",
                "keep more checkpoints (train.checkpoint.keep_every), or ask for a width nearer to those of "
                "method.ema_power",
            )
        return found

    def name(self, network: str) -> str:
        """Of these weights, with what they were made of and how near their profile is to the wanted one."""
        error, count = self._fit(network)
        return f"power {self.width:g} made of {count} averages ({100 * error:.1f} % off its profile)"

    def _fit(self, network: str) -> tuple[float, int]:
        kept = [profile for each in self.checkpoints for profile in profiles_in(each, network).values()]
        if not kept:
            post_hoc_average(self.checkpoints, network, self.width)  # tells what is missing
        wanted = Profile(self.checkpoints[-1].step, power_exponent(self.width))
        return profile_error(kept, wanted, post_hoc_weights(kept, wanted)), len(kept)
