"""The erasures that `bench rece` compares: each method over the dial that trades attack success for harm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from generative.methods.rece.config import EraseConfig, StepConfig

KEEP_TEMPLATES, TRY_TEMPLATES = (0, 1, 2), (3, 4, 5)
"""Captions of the other classes that are kept, and those that the harm to them is measured with."""


@dataclass(frozen=True)
class Variant:
    """One setting of one method.

    Args:
        method: original, uce, rece, preserve or cumulative.
        dial: its setting: lam (rece), or the weight of each kept caption; 0 where there is none.
        config: constants; None: nothing is erased.
        keeps: whether captions of the other classes are kept.
    """

    method: str
    dial: float
    config: EraseConfig | None
    keeps: bool = False

    @property
    def name(self) -> str:
        """Such as rece_0.1."""
        return f"{self.method}_{self.dial:g}" if self.dial else self.method


def _uce(scale: float) -> EraseConfig:
    return EraseConfig(start=StepConfig(preserve_scale=scale), epochs=0, scale_free=True)


def _rece(lam: float, epochs: int, scale: float | None = None, **more: Any) -> EraseConfig:
    """As published but for units (scale_free); `scale`: of each kept caption, in UCE's edit and in RECE's."""
    start, step = (1.0, 0.1) if scale is None else (scale, scale)
    return EraseConfig(
        start=StepConfig(preserve_scale=start),
        step=StepConfig(variant="whole", lamb=0.1, preserve_scale=step),
        lam=lam,
        epochs=epochs,
        scale_free=True,
        **more,
    )


LAMS = (1.0, 0.1, 0.01, 0.001)
SCALES = (0.1, 0.02, 0.004, 0.0008)
EPOCHS = 3
"""Of the variants that keep captions."""


def variants(lams: tuple[float, ...] = LAMS, scales: tuple[float, ...] = SCALES) -> list[Variant]:
    """All settings. RECE's own curve is over lam at one epoch, and lam 0.1 at three."""
    return [
        Variant("original", 0, None),
        Variant("uce", 0, _uce(1.0)),
        *(Variant("rece", lam, _rece(lam, 1)) for lam in lams),
        Variant("rece3", 0.1, _rece(0.1, 3)),
        *(Variant("preserve", scale, _rece(0.1, EPOCHS, scale), True) for scale in scales),
        *(Variant("cumulative", scale, _rece(0.1, EPOCHS, scale, cumulative=True), True) for scale in scales),
    ]
