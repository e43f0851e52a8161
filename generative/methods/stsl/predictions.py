"""What networks predict, as the noise e of z = a z0 + b n.

| kind | prediction | e |
|---|---|---|
| epsilon | n | as it is |
| v_prediction | a n - b z0, a^2 + b^2 = 1 | a v + b z |
| sample | z0 | (z - a z0) / b |
| score | grad log p(z) | -b s |
| flow | n - z0 where a + b = 1 | z + a u |
"""

from __future__ import annotations

import math
from typing import Literal, get_args

from torch import Tensor

from generative.errors import ConfigError, suggestion
from generative.methods.stsl.levels import Level

Kind = Literal["epsilon", "v_prediction", "sample", "score", "flow"]


def to_noise(kind: Kind, output: Tensor, z: Tensor, level: Level) -> Tensor:
    """e of a network's output at z, in z's type.

    Raises:
        ConfigError: unknown kind, or a level on a path that the kind does not know.
    """
    a, b, output = level.signal, level.noise, output.to(z.dtype)
    if kind == "epsilon":
        return output
    if kind == "sample":
        return (z - a * output) / b
    if kind == "score":
        return -b * output
    if kind == "v_prediction":
        _require(kind, math.isclose(a * a + b * b, 1, abs_tol=1e-6), level)
        return a * output + b * z
    if kind == "flow":
        _require(kind, math.isclose(a + b, 1, abs_tol=1e-6), level)
        return z + a * output
    kinds = get_args(Kind)
    raise ConfigError(f"a prediction {kind!r}{suggestion(kind, kinds)}", f"one of {', '.join(kinds)}", "correct it")


def _require(kind: str, fits: bool, level: Level) -> None:
    if not fits:
        wanted = "a + b = 1" if kind == "flow" else "a^2 + b^2 = 1"
        raise ConfigError(f"{kind} at a={level.signal:.4g}, b={level.noise:.4g}", wanted, "use levels of its own path")
