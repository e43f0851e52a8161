"""The erasures that `bench rece` compares: each method over the dial that trades attack success for harm."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from generative.methods.rece.config import EraseConfig, StepConfig

KEEP_TEMPLATES, TRY_TEMPLATES = (0, 1, 2), (3, 4, 5)
"""Captions of the other classes that are kept, and those that the harm to them is measured with."""


@dataclass(frozen=True)
class Variant:
    """One setting of one method.

    Args:
        method: original, uce, rece, preserve, cumulative or keep_only; with _relative: the guide is the word of the
            next class, not " "; with _but_one: that class is not among those kept.
        dial: its setting: lam (rece), the weight of each kept caption, or the shrinkage (keep_only); 0: there is none.
        config: constants; None: nothing is erased.
        keeps: whether captions of the other classes are kept.
    """

    method: str
    dial: float
    config: EraseConfig | None
    keeps: bool = False

    @property
    def relative(self) -> bool:
        """Whether the guide is another class."""
        return self.method.endswith("_relative")

    @property
    def but_one(self) -> bool:
        """Whether one class is not kept."""
        return self.method.endswith("_but_one")

    @property
    def name(self) -> str:
        """Such as rece_0.1."""
        return f"{self.method}_{self.dial:g}" if self.dial else self.method

    @property
    def key(self) -> str:
        """Of all that changes its results."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:8]


def _uce(scale: float) -> EraseConfig:
    return EraseConfig(start=StepConfig(preserve_scale=scale), epochs=0, scale_free=True)


def _rece(lam: float, epochs: int, scale: float | None = None, shrink: float = 0.0, **more: Any) -> EraseConfig:
    """As published but for units (scale_free); `scale`: of each kept caption, in UCE's edit and in RECE's."""
    start, step = (1.0, 0.1) if scale is None else (scale, scale)
    return EraseConfig(
        start=StepConfig(preserve_scale=start, shrink=shrink),
        step=StepConfig(variant="whole", lamb=0.1, preserve_scale=step, shrink=shrink),
        lam=lam,
        epochs=epochs,
        scale_free=True,
        **more,
    )


LAMS = (1.0, 0.1, 0.01, 0.001)
SCALES = (0.1, 0.02, 0.004, 0.0008)
EPOCHS = 3
"""Of the variants that keep captions."""


SHRINKS = (0.01, 0.03, 0.1, 0.3)
RELATIVE = (0.03, 0.06, 0.1)
"""Shrinkages where the guide is another class."""


def _keep_only(shrink: float, ending: str = "", scale: float = 1.0) -> Variant:
    """The preset of this name, but for the weights of what is kept."""
    return Variant(f"keep_only{ending}", shrink, _rece(0.1, EPOCHS, scale, shrink, cumulative=True), True)


def _cumulative(scale: float, ending: str = "") -> Variant:
    return Variant(f"cumulative{ending}", scale, _rece(0.1, EPOCHS, scale, cumulative=True), True)


def variants() -> list[Variant]:
    """All settings. RECE's own curve is over lam at one epoch, and lam 0.1 at three."""
    return [
        Variant("original", 0, None),
        Variant("uce", 0, _uce(1.0)),
        *(Variant("rece", lam, _rece(lam, 1)) for lam in LAMS),
        Variant("rece3", 0.1, _rece(0.1, 3)),
        *(Variant("preserve", scale, _rece(0.1, EPOCHS, scale), True) for scale in SCALES),
        *(_cumulative(scale) for scale in SCALES),
        *(_keep_only(shrink) for shrink in SHRINKS),
        Variant("rece_relative", 0.1, _rece(0.1, 1)),
        _cumulative(0.004, "_relative"),
        *(_keep_only(shrink, "_relative", 0.5) for shrink in RELATIVE),
        _keep_only(0.03, "_but_one"),
    ]


def few_variants() -> list[Variant]:
    """One of each kind, for a quick look."""
    return [
        Variant("original", 0, None),
        Variant("uce", 0, _uce(1.0)),
        Variant("rece", 0.1, _rece(0.1, 1)),
        Variant("preserve", 0.02, _rece(0.1, EPOCHS, 0.02), True),
        _cumulative(0.02),
        _keep_only(0.1),
        _keep_only(0.1, "_relative", 0.5),
        _keep_only(0.03, "_but_one"),
    ]
