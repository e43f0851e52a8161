"""How figures of images and of speech are called, and which way is better."""

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


_IMAGE: Mapping[str, FigureName] = {
    "psnr": FigureName("PSNR", "higher"),
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

_SPEECH: Mapping[str, FigureName] = {
    "si_sdr": FigureName("SI-SDR", "higher"),
    "estoi": FigureName("ESTOI", "higher", "at most 1"),
    "pesq_wb": FigureName("PESQ (wide band)", "higher", "at most 4.64"),
    "pesq_nb": FigureName("PESQ (narrow band)", "higher", "at most 4.55"),
    "stoi": FigureName("STOI", "higher", "at most 1"),
    "si_sir": FigureName("SI-SIR", "higher"),
    "si_sar": FigureName("SI-SAR", "higher"),
    "level_error": FigureName("Level error", "lower", "0 where speech is as loud as in the clean file"),
}

KNOWN_FIGURES: Mapping[str, FigureName] = {
    **_IMAGE,
    **_SPEECH,
    **{f"noisy_{key}": FigureName(f"{name.label} of the noisy", name.better) for key, name in _SPEECH.items()},
}
"""By key of evaluation.json, those first that tell most."""

_TOTAL = re.compile(r"([\d,]+) modes\b")


def out_of(key: str, protocol: str) -> str:
    """'of 1,000' for a count of modes whose protocol tells how many there are; '' for everything else."""
    found = _TOTAL.search(protocol) if key == "modes" else None
    return f"of {found[1]}" if found else ""


HEADLINES = ("fid", "coverage", "modes", "si_sdr", "estoi", "pesq_wb", "pesq_nb")
"""Figures that stand for a model where a line has room for some; the first one where it has for one."""


def chief_figures(keys: Iterable[str]) -> list[str]:
    """Keys of the figures that sum up an evaluation: those known to, or else the first one."""
    known = list(keys)
    return [key for key in HEADLINES if key in known] or known[:1]
