"""Golden numbers of the released code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[3] / "golden" / "f_distill"


def arrays(name: str) -> dict[str, Tensor]:
    """The arrays of NAME.npz as tensors."""
    with np.load(GOLDEN / f"{name}.npz") as found:
        return {key: torch.from_numpy(np.array(value)) for key, value in found.items()}
