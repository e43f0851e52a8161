"""How the figures of image models are called, and which way is better; and the names of speech metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FigureName:
    """What a person reads.

    Args:
        label: as at the beginning of a line.
        better: "lower" or "higher".
        means: what the figure tells, in a few words.
    """

    label: str
    better: Literal["lower", "higher"]
    means: str = ""

    @property
    def inline(self) -> str:
        """The label within a line: names such as FID keep their capitals."""
        return self.label[:1].lower() + self.label[1:] if self.label[1:2].islower() else self.label


IMAGE_FIGURES: Mapping[str, FigureName] = {
    "fid": FigureName("FID", "lower", "0 where both sets have one distribution"),
    "modes": FigureName("Modes", "higher"),
    "mode_kl": FigureName("KL of the modes to uniform", "lower", "0 where all modes are equally frequent"),
    "confidence": FigureName("Classifier confidence", "higher", "at most 1"),
    "coverage": FigureName("Coverage", "higher", "at most 1"),
    "precision": FigureName("Precision", "higher"),
    "recall": FigureName("Recall", "higher"),
    "density": FigureName("Density", "higher", "about 1 where both sets have one distribution"),
    "high_quality": FigureName("High-quality samples", "higher", "at most 1"),
    "kid": FigureName("KID", "lower", "0 on average where both sets have one distribution"),
    "inception_score": FigureName("Inception score", "higher"),
    "improved_precision": FigureName("Improved precision", "higher"),
    "improved_recall": FigureName("Improved recall", "higher"),
    "f8": FigureName("PRD F8 (recall)", "higher", "at most 1"),
    "f1_8": FigureName("PRD F1/8 (precision)", "higher", "at most 1"),
    "i_variance": FigureName("I-Variance", "higher"),
}
"""By key of evaluation.json, those first that tell most."""

SPEECH_FIGURES: Mapping[str, str] = {
    "si_sdr": "SI-SDR",
    "si_sir": "SI-SIR",
    "si_sar": "SI-SAR",
    "estoi": "ESTOI",
    "stoi": "STOI",
    "pesq_nb": "PESQ (narrow band)",
    "pesq_wb": "PESQ",
}
"""What a person reads, by key of `evaluation.speech.METRICS`."""

_TOTAL = re.compile(r"([\d,]+) modes\b")


def out_of(key: str, protocol: str) -> str:
    """'of 1,000' for a count of modes whose protocol tells how many there are; '' for everything else."""
    found = _TOTAL.search(protocol) if key == "modes" else None
    return f"of {found[1]}" if found else ""


HEADLINES = ("fid", "coverage", "modes")
"""Figures that stand for an image model where a line has room for three; the first one where it has for one."""


def chief_figures(keys: Iterable[str]) -> list[str]:
    """Keys of the figures that sum up an evaluation: some of an image model's, or else the first one."""
    known = list(keys)
    return [key for key in HEADLINES if key in known] or known[:1]
