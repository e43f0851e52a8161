"""Data for the trainer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tests.generative.methods.f_distill.cases import batch_of


class Images:
    """Twenty images with classes."""

    def __len__(self) -> int:
        return 20

    def fetch(self, indices: np.ndarray) -> dict[str, Tensor]:
        rows = [batch_of(1, int(i)) for i in indices]
        return {key: torch.cat([row[key] for row in rows]) for key in ("sample", "label")}
