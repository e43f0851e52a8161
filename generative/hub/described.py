"""Pickles that carry the source of their classes (EDM, StyleGAN: `torch_utils.persistence`), read without running any.

Ordinary unpickling would compile and run that source. Here an object is what the file says of it: the name of its class
and its fields. A short list of names stands for functions of this module, which build plain values; a file that names
anything else is refused. The functions are made anew for each file, since a pickle may set attributes of what it names.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generative.errors import CheckpointError
from generative.hub.legacy import check_there, read_storage, told

DEEPEST = 30
"""Parts within parts that a network may have."""


@dataclass
class Described:
    """An object as a file describes it.

    Args:
        kind: name of its class.
        fields: its attributes.
    """

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)

    def named_tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Parameters and persistent buffers of a module and its parts, by name, as its state dict would have them.

        Raises:
            CheckpointError: parts within parts without an end, as no network has them.
        """
        if prefix.count(".") > DEEPEST:
            raise CheckpointError(f"parts of parts of parts: {prefix[:60]}...", "a network", "download the file again")
        left_out = self.fields.get("_non_persistent_buffers_set") or ()
        for group in ("_parameters", "_buffers"):
            for name, tensor in _mapping(self.fields.get(group)).items():
                if isinstance(tensor, Tensor) and name not in left_out:
                    yield prefix + str(name), tensor.detach()
        for name, part in _mapping(self.fields.get("_modules")).items():
            if isinstance(part, Described):
                yield from part.named_tensors(f"{prefix}{name}.")


def read_described(path: Path) -> dict[str, Any]:
    """The dict of plain values, tensors and `Described` objects that a pickle holds; nothing in it is run.

    Raises:
        CheckpointError: no such file, cut short, no dict, or it names what is not on the list.
    """
    check_there(path)
    with told(path), path.open("rb") as file:
        found = _Reader(file).load()
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{path} holds a {type(found).__name__}",
            "a dict with a network in it",
            "give a file that the released training wrote",
        )
    return found


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


class _Reader(pickle.Unpickler):
    """Looks names up in its own table, and nowhere else."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._known = _known_names()

    def find_class(self, module: str, name: str) -> Any:
        """What stands for `module.name`."""
        full = f"{module}.{name}"
        if full not in self._known:
            raise pickle.UnpicklingError(f"GLOBAL {full} is not on the list")
        return self._known[full]


def _known_names() -> dict[str, Callable[..., Any]]:
    """What may be named, and what stands for it."""

    class Module(Described):
        """A module of torch: created empty, then filled."""

        def __new__(cls, *_: Any) -> Module:
            made = super().__new__(cls)
            made.kind, made.fields = "Module", {}
            return made

        def __init__(self, *_: Any) -> None:
            """Nothing: `__new__` is called alone where an object is made anew."""

        def __setstate__(self, state: Any) -> None:
            self.fields = dict(_mapping(state))

    class DataType:
        """A type of numbers: created by name, then told its byte order."""

        def __init__(self, name: Any, *_: Any) -> None:
            self.name, self.order = str(name), "="

        def __setstate__(self, state: Any) -> None:
            self.order = state[1] if state[1] in ("<", ">", "|", "=") else "="

    def described(meta: Any) -> Described:
        fields = _mapping(meta.get("state"))
        return Described(str(meta.get("class_name")), dict(fields))

    def scalar(kind: Any, data: Any) -> int | float | bool:
        dtype = np.dtype(kind.name).newbyteorder(kind.order)
        if dtype.kind not in "biuf" or not isinstance(data, bytes) or len(data) != dtype.itemsize:
            raise pickle.UnpicklingError(f"error: a number of type {kind.name}")
        value: int | float | bool = np.frombuffer(data, dtype)[0].item()
        return value

    def encoded(text: str, coding: str) -> bytes:
        if coding != "latin1":
            raise pickle.UnpicklingError(f"error: text coded as {coding}")
        return text.encode("latin1")

    def tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
        if not isinstance(storage, torch.storage.TypedStorage):
            raise pickle.UnpicklingError(f"error: a {type(storage).__name__} where the numbers of a tensor should be")
        # torch would make room for what is not there, of whatever lay in memory.
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if math.prod(size) and last >= storage._size():  # type: ignore[no-untyped-call]
            raise pickle.UnpicklingError(f"error: a tensor of shape {list(size)} that reaches beyond its numbers")
        made: Tensor = torch._utils._rebuild_tensor_v2(storage, offset, size, stride, False, OrderedDict())  # type: ignore[no-untyped-call]
        return made

    def parameter(data: Any, *_: Any) -> Tensor:
        if not isinstance(data, Tensor):
            raise pickle.UnpicklingError(f"error: a {type(data).__name__} where a parameter should be")
        return data

    return {
        "torch_utils.persistence._reconstruct_persistent_obj": described,
        "torch.nn.modules.container.ModuleDict": Module,
        "torch.nn.modules.container.ModuleList": Module,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_parameter": parameter,
        "torch.storage._load_from_bytes": lambda data: read_storage(data),
        "numpy.core.multiarray.scalar": scalar,
        "numpy._core.multiarray.scalar": scalar,
        "numpy.dtype": DataType,
        "dnnlib.util.EasyDict": dict,
        "collections.OrderedDict": OrderedDict,
        "_codecs.encode": encoded,
        "builtins.set": set,
        "__builtin__.set": set,
    }
