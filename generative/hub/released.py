"""Trained networks in the files of the released code of their method, for programs that read nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from generative.hub.folder import appearing, check_space
from generative.hub.legacy import write_state_dict
from generative.registry import Registry
from generative.training.checkpoint import Checkpoint
from generative.training.networks import checkpoint_weights

Files = Mapping[str, Mapping[str, Tensor]]
"""State dicts by file name."""


def _mee_gan(checkpoint: Checkpoint, average: float | None) -> Files:
    from generative.methods.mee_gan.convert import to_released

    generator = checkpoint_weights(checkpoint, "generator", average)
    discriminator = checkpoint_weights(checkpoint, "discriminator")
    step = checkpoint.step
    return {f"{step}gen.pth": to_released(generator), f"{step}cls.pth": to_released(discriminator)}


RELEASED: Registry[Callable[[Checkpoint, float | None], Files]] = Registry(
    "method with released files", {"mee_gan": _mee_gan}
)
"""(checkpoint, rate of the generator's average or None) -> files; raises CheckpointError."""


def write_released(folder: Path, files: Files) -> list[Path]:
    """Write the files; the folder appears when they are on the disk.

    Args:
        folder: checked by `check_target`; a new one.
        files: what goes into it.

    Raises:
        ResourceError: the disk is full or cannot be written; nothing is left behind.
    """
    check_space(folder, sum(tensor.nbytes for state in files.values() for tensor in state.values()))
    with appearing(folder, force=False) as partial:
        for name, state in files.items():
            write_state_dict(partial / name, state)
    return sorted(folder.iterdir())
