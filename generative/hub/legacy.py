"""State dicts in the formats that published code uses: bare PyTorch files, read without running what is in them.

The only place where `torch.load` is called, and only with `weights_only`: tensors and plain values come out, and a file
that names anything else is refused. Of whole checkpoints, which name classes of their program, such names are read as
`Named`. torch's own reader looks names up in a table, and imports none; what is not in it, it refuses. `Named` is put
into that table for the names in the file, so that nothing else can be called for them.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals
from torch.utils._pytree import tree_map

from generative.errors import CheckpointError

SAFETENSORS = ".safetensors"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, from a .safetensors file or what torch.save made of a state dict (.pth, .pt, .bin).

    Raises:
        CheckpointError: no such file, cut short, another format, code in it, or something else than a state dict.
    """
    check_there(path)
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path)
    with told(path):
        found = torch.load(path, map_location="cpu", weights_only=True)
    return _checked(path, found)


class Named:
    """Stands for a class or function that a file names, and for what it would have made: it does nothing."""

    name: ClassVar[str] = ""
    """What the file calls it."""

    def __new__(cls, *arguments: Any) -> Named:
        return super().__new__(cls)

    def __init__(self, *arguments: Any) -> None:
        """Nothing."""

    def __setstate__(self, state: Any) -> None:
        """Nothing."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a training program saved by torch.save: nested plain values and tensors, on the CPU, and `Named`.

    Tensors are mapped from the file: what is not used is not read.

    Raises:
        CheckpointError: no such file, cut short, another format, or no dict; a dict or list of a class that is named,
            which cannot be filled; a name from a module of the system (sys, os), for which no checkpoint has a use.
    """
    check_there(path)
    with told(path):
        zipped = zipfile.is_zipfile(path)
        names = get_unsafe_globals_in_checkpoint(path) if zipped else []
        with safe_globals([(type("Named", (Named,), {"name": name}), name) for name in names]):
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    if not isinstance(found, dict):
        raise _other(path, f"a {type(found).__name__}")
    return found


def read_storage(data: bytes) -> Any:
    """A storage that torch.save wrote within a pickle of another program; UnpicklingError for anything else."""
    found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(found, torch.storage.TypedStorage | torch.UntypedStorage):
        raise pickle.UnpicklingError(f"error: a {type(found).__name__} where the numbers of a tensor should be")
    return found


def check_there(path: Path) -> None:
    """Raises CheckpointError: there is no such file."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file", "a file of weights", "correct the path")


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """What goes wrong in reading a file, as a CheckpointError."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from error
    except (
        SafetensorError,  # torch.load takes files of that name for what they are called
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        ArithmeticError,
        MemoryError,  # a length in a file that is damaged
    ) as error:
        raise _damaged(path, error) from error


def write_state_dict(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, and plain values around them, as published code reads them: a plain dict by torch.save.

    Raises:
        OSError: the file cannot be written.
    """

    def alone(value: Any) -> Any:  # a view would take its whole storage along
        return value.detach().cpu().contiguous().clone() if isinstance(value, Tensor) else value

    torch.save(tree_map(alone, dict(state)), path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    with told(path):
        found: dict[str, Tensor] = load_file(path)
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
        reason = re.search(r"error:\s+(.+)", message)
        return _damaged(path, ValueError(reason[1] if reason else message))
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
