"""Trained networks in the files of the released code of their method, for programs that read nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from torch.utils._pytree import tree_leaves

from generative.config import Config
from generative.hub.files import write_files
from generative.hub.folder import appearing, check_space, mark
from generative.hub.legacy import write_state_dict
from generative.hub.tensors import InMemory
from generative.method import Average
from generative.registry import Registry
from generative.training.checkpoint import Checkpoint
from generative.training.networks import checkpoint_weights

Files = Mapping[str, Mapping[str, Any]]
"""State dicts or whole checkpoints by file name; `*.safetensors` are written as such, others by torch.save."""


def _mee_gan(method: Config, checkpoint: Checkpoint, average: Average | None) -> Files:
    from generative.methods.mee_gan.convert import to_released

    generator = checkpoint_weights(checkpoint, "generator", average)
    discriminator = checkpoint_weights(checkpoint, "discriminator")
    step = checkpoint.step
    return {f"{step}gen.pth": to_released(generator), f"{step}cls.pth": to_released(discriminator)}


def _sgmse(method: Config, checkpoint: Checkpoint, average: Average | None) -> Files:
    from generative.methods.sgmse.config import SgmseConfig
    from generative.methods.sgmse.convert import to_lightning

    assert isinstance(method, SgmseConfig)
    trained = checkpoint_weights(checkpoint, "net")
    averaged = None if average is None else checkpoint_weights(checkpoint, "net", average)
    return {f"step={checkpoint.step}.ckpt": to_lightning(method, trained, averaged, checkpoint.step)}


def _smdm(method: Any, checkpoint: Checkpoint, average: Average | None) -> Files:
    from generative.nets.lora import merged
    from generative.nets.smdm_checkpoints import published_name
    from generative.nets.smdm_layout import check_smdm, to_smdm

    check_smdm(method.network)
    weights = checkpoint_weights(checkpoint, "net", average)
    changes = getattr(method, "lora", None)
    whole = weights if changes is None else merged(weights, changes)
    family: Literal["mdm", "ar"] = "mdm" if method.name == "masked_diffusion" else "ar"
    return {published_name(method.network, family, checkpoint.step): to_smdm(whole, method.network)}


RELEASED: Registry[Callable[[Any, Checkpoint, Average | None], Files]] = Registry(
    "method with released files",
    {"masked_diffusion": _smdm, "autoregressive": _smdm, "mee_gan": _mee_gan, "sgmse": _sgmse},
)
"""(the method's section, checkpoint, rate of an average or None) -> files; raises CheckpointError."""


def write_released(folder: Path, files: Files, force: bool = False) -> list[Path]:
    """Write the files, and a hidden one that tells them from others of such names; the folder appears when they are
    on the disk.

    Args:
        folder: checked by `check_target`.
        files: what goes into it.
        force: replace an earlier export.

    Returns:
        the files, by name, without the hidden one.

    Raises:
        ResourceError: the disk is full or cannot be written; nothing is left behind.
    """
    tensors = (value for value in tree_leaves(dict(files)) if isinstance(value, Tensor))
    check_space(folder, sum(tensor.nbytes for tensor in tensors))
    with appearing(folder, force) as partial:
        mark(partial, files)
        for name, state in files.items():
            if name.endswith(".safetensors"):
                source = InMemory({key: tensor.contiguous() for key, tensor in state.items()})
                write_files(partial, {name: source.saved()}, source)
            else:
                write_state_dict(partial / name, state)
    return [folder / name for name in sorted(files)]
