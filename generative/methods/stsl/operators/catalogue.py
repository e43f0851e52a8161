"""Operators by name: `superres:factor=4`, `inpaint:missing=0.7,seed=3`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from generative.errors import ConfigError, suggestion
from generative.methods.stsl.operators.base import Operator
from generative.methods.stsl.operators.convolution import motion_blur
from generative.methods.stsl.operators.cosine import compressed_sensing, jpeg
from generative.methods.stsl.operators.masks import box, free_form, inpaint
from generative.methods.stsl.operators.nonlinear import hdr, phase_retrieval
from generative.methods.stsl.operators.separable import gaussian_blur, superres

OPERATORS: dict[str, Callable[..., Operator]] = {
    make.__name__: make
    for make in (
        superres,
        gaussian_blur,
        motion_blur,
        inpaint,
        box,
        free_form,
        compressed_sensing,
        phase_retrieval,
        hdr,
        jpeg,
    )
}
"""name -> (shape of images, parameters) -> operator."""


def make_operator(text: str, image: Sequence[int]) -> Operator:
    """The operator that `text` names, for images of a shape [C, H, W].

    Raises:
        ConfigError: unknown name or parameter, or a value of another type.
        DataError: images that do not fit.
    """
    name, _, rest = text.partition(":")
    if name not in OPERATORS:
        raise ConfigError(
            f"operator {name!r}{suggestion(name, OPERATORS)}",
            f"one of {', '.join(OPERATORS)}",
            "write NAME or NAME:parameter=value,..., such as superres:factor=4",
        )
    make = OPERATORS[name]
    hints = {key: kind for key, kind in get_type_hints(make).items() if key not in ("image", "return")}
    pairs = [_pair(part, text) for part in rest.split(",") if part]
    given = dict(pairs)
    if len(given) < len(pairs):
        raise ConfigError(f"operator {text!r}: a parameter is given twice", "each once", "leave out one of them")
    for key in given:
        if key not in hints:
            raise ConfigError(
                f"operator {text!r}: {name} has no parameter {key!r}{suggestion(key, hints)}",
                f"some of {_parameters(make)}",
                "correct the parameter",
            )
    return make(image, **{key: _value(value, hints[key], f"{name}:{key}={value}") for key, value in given.items()})


def _pair(part: str, text: str) -> tuple[str, str]:
    key, equals, value = part.partition("=")
    if not equals or not value:
        raise ConfigError(f"operator {text!r}: {part!r}", "parameter=value", "write it so, with commas between several")
    return key.strip(), value.strip()


def _parameters(make: Callable[..., Operator]) -> str:
    known = list(inspect.signature(make).parameters.values())[1:]
    return ", ".join(f"{p.name}={p.default}" for p in known)


def _value(text: str, kind: Any, shown: str) -> Any:
    choices = get_args(kind) if get_origin(kind) is not None else ()
    if choices:
        if text not in choices:
            raise ConfigError(f"{shown}{suggestion(text, choices)}", f"one of {', '.join(choices)}", "correct it")
        return text
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        wanted = "a whole number" if kind is int else "a number"
        raise ConfigError(f"operator parameter {shown}", wanted, "correct the value")
    return value
