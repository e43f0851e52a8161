"""State dicts in the formats that published code uses: bare PyTorch files, read without running what is in them.

The only place where `torch.load` is called, and only with `weights_only`: tensors and plain values come out, and a file
that names anything else is refused.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generative.errors import CheckpointError

SAFETENSORS = ".safetensors"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, from a .safetensors file or what torch.save made of a state dict (.pth, .pt, .bin).

    Raises:
        CheckpointError: no such file, cut short, another format, code in it, or something else than a state dict.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file", "a file of weights", "correct the path")
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise _damaged(path, error) from error
    return _checked(path, found)


def write_state_dict(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors as published code reads them: a plain dict by torch.save.

    Raises:
        OSError: the file cannot be written.
    """
    torch.save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise _damaged(path, error) from error
    return found


def _checked(path: Path, found: Any) -> dict[str, Tensor]:
    """A flat dict of ordinary tensors, and nothing else."""
    if not isinstance(found, Mapping):
        raise _other(path, f"a {type(found).__name__}")
    strange = [name for name, value in found.items() if not _ordinary(name, value)]
    if strange or not found:
        first = ", ".join(map(repr, list(found)[:4])) or "nothing"
        raise _other(path, f"a dict of {first} whose {strange[0]!r} is no plain tensor" if strange else "an empty dict")
    return {name: tensor.detach().contiguous() for name, tensor in found.items()}


def _ordinary(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided


def _other(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} holds {what}",
        "a state dict: names and tensors",
        "save the network's state_dict() alone, best with safetensors.torch.save_file, where the file comes from",
    )


def _refused(path: Path, message: str) -> CheckpointError:
    named = re.search(r"GLOBAL ([\w.]+)", message)
    if named is None:
        return _damaged(path, ValueError(message))
    return CheckpointError(
        f"{path} is refused: it would call {named[1]}, and a file of weights has no business to",
        "tensors and plain values only",
        "if you trust where it comes from, load it there and save its state_dict() with safetensors.torch.save_file",
    )


def _damaged(path: Path, error: Exception) -> CheckpointError:
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return CheckpointError(
        f"{path} cannot be read as weights: {first[:200]}",
        "a whole file that torch.save or safetensors wrote",
        "download or copy it again; it may be cut short, or of another format",
    )
