"""Published constants to compare with, each with its source and whether it was seen there.

Units: N parameters in each paper's own convention (named), D tokens, C FLOPs unless `PF-days` is said, nats per token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from evaluation.scaling.forms import Surface
from evaluation.scaling.lines import Line

Seen = Literal["paper", "quoted", "computed", "unverified"]
"""In the paper's text, code or stored outputs; in texts that quote it and agree; by us from its data; from memory."""


@dataclass(frozen=True)
class Source:
    """Where a constant comes from.

    Args:
        paper: in short.
        seen: how far it was checked.
        note: convention of N, or what to beware of.
    """

    paper: str
    seen: Seen
    note: str = ""

    def __str__(self) -> str:
        mark = {"quoted": ", as quoted", "computed": ", computed from its data", "unverified": ", UNVERIFIED"}
        return self.paper + mark.get(self.seen, "")


@dataclass(frozen=True)
class Constants:
    """Named numbers of one source."""

    values: Mapping[str, float]
    source: Source


@dataclass(frozen=True)
class Exponents:
    """N_opt ~ C^a and D_opt ~ C^b.

    Args:
        a: of N_opt, with its published interval or None.
        b: of D_opt; None where it was not published.
        a_interval: as published.
        b_interval: as published.
        level: of the intervals.
        source: with the status of the exponents; `intervals_seen` is that of the intervals.
        intervals_seen: how far the intervals were checked.
    """

    a: float
    b: float | None
    source: Source
    a_interval: tuple[float, float] | None = None
    b_interval: tuple[float, float] | None = None
    level: float | None = None
    intervals_seen: Seen = "paper"


_KAPLAN = "Kaplan et al. 2020"
_NON_EMBEDDING = "N non-embedding, C in PF-days"

KAPLAN: Mapping[str, Constants] = {
    "L_N": Constants({"Nc": 8.8e13, "alpha_N": 0.076}, Source(_KAPLAN, "quoted", _NON_EMBEDDING)),
    "L_D": Constants({"Dc": 5.4e13, "alpha_D": 0.095}, Source(_KAPLAN, "quoted", _NON_EMBEDDING)),
    "L_Cmin": Constants({"Cc": 3.1e8, "alpha_C": 0.050}, Source(_KAPLAN, "quoted", _NON_EMBEDDING)),
    "L_C_naive": Constants({"Cc": 1.6e7, "alpha_C": 0.057}, Source(_KAPLAN, "quoted", _NON_EMBEDDING)),
    "L_ND": Constants(
        {"Nc": 6.4e13, "Dc": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103},
        Source(_KAPLAN, "quoted", "a set of its own: not to be mixed with the fits of one variable"),
    ),
    "L_NS": Constants(
        {"Nc": 6.5e13, "Sc": 2.1e3, "alpha_N": 0.077, "alpha_S": 0.76}, Source(_KAPLAN, "unverified", _NON_EMBEDDING)
    ),
    "B_crit": Constants({"B_star": 2.1e8, "alpha_B": 0.21}, Source(_KAPLAN, "unverified", "tokens, L^(-1/alpha_B)")),
    "N_opt": Constants({"exponent": 0.73}, Source(_KAPLAN, "quoted", _NON_EMBEDDING)),
    "batch": Constants({"exponent": 0.24}, Source(_KAPLAN, "quoted")),
    "steps": Constants({"exponent": 0.03}, Source(_KAPLAN, "quoted")),
    "overfit": Constants(
        {"factor": 5e3, "exponent": 0.74}, Source(_KAPLAN, "quoted", "below 2 % if D > factor N^exponent")
    ),
}

_HOFFMANN = "Hoffmann et al. 2022"

HOFFMANN = Surface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
"""Equation 10 as printed; N counts all parameters."""

HOFFMANN_LOG = (6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083)
"""(a, b, e, alpha, beta) of the paper's source before rounding, as Besiroglu et al. 2024 read it."""

BESIROGLU = Surface(E=1.81686, A=482.00572, B=2085.43420, alpha=0.34781, beta=0.36585)
"""Their refit of 240 of 245 points read off a figure. It is the optimum of absolute deviations, not of Huber's loss
with delta 1e-3, because residuals were divided by a fitted scale before delta (the paper prints E = 1.8172)."""

BESIROGLU_INTERVALS: Mapping[str, tuple[float, float]] = {
    "A": (285.2, 743.6),
    "B": (1042.0, 5810.0),
    "E": (1.769, 1.871),
    "alpha": (0.317, 0.373),
    "beta": (0.331, 0.415),
}
"""95 % bootstrap intervals of the notebook's outputs."""

HOFFMANN_EXPONENTS: Mapping[str, Exponents] = {
    "approach 1 (envelope)": Exponents(
        0.50, 0.50, Source(_HOFFMANN, "paper"), (0.488, 0.502), (0.501, 0.512), 0.8, "unverified"
    ),
    "approach 2 (IsoFLOP)": Exponents(
        0.49, 0.51, Source(_HOFFMANN, "paper"), (0.462, 0.534), (0.483, 0.529), 0.8, "unverified"
    ),
    "approach 3 (parametric)": Exponents(
        0.46, 0.54, Source(_HOFFMANN, "paper"), (0.454, 0.455), (0.542, 0.543), 0.8, "unverified"
    ),
    "C4 IsoFLOP": Exponents(0.50, 0.50, Source(f"{_HOFFMANN}, Table A2", "paper")),
    "GitHub IsoFLOP": Exponents(0.53, 0.47, Source(f"{_HOFFMANN}, Table A2", "paper")),
}

HOFFMANN_TABLE_A3: tuple[tuple[float, float, float], ...] = (
    (400e6, 1.84e19, 7.7e9),
    (1e9, 1.20e20, 20.0e9),
    (10e9, 1.32e22, 219.5e9),
    (67e9, 6.88e23, 1.7e12),
    (175e9, 4.54e24, 4.3e12),
    (280e9, 1.18e25, 7.1e12),
    (520e9, 4.19e25, 13.4e12),
    (1e12, 1.59e26, 26.5e12),
    (10e12, 1.75e28, 292e12),
)
"""N, C and D of compute-optimal training by approach 2 (Table A3)."""

PORIAN_EXPONENTS: Mapping[str, Exponents] = {
    step: Exponents(a, None, Source("Porian et al. 2024, RefinedWeb", "paper", note), interval, None, 0.95)
    for step, a, interval, note in (
        ("Kaplan's setup", 0.835, (0.824, 0.846), "no head in C, long warm-up, training loss"),
        ("head counted", 0.707, (0.691, 0.717), ""),
        ("warm-up in proportion to size", 0.602, (0.591, 0.617), ""),
        ("cosine as long as the run", 0.572, (0.560, 0.589), ""),
        ("tuned, constant learning rate", 0.497, (0.491, 0.505), ""),
        ("tuned, attention counted", 0.505, (0.496, 0.512), ""),
        ("tuned, Kaplan's counting", 0.712, (0.703, 0.721), ""),
    )
}
"""Each row corrects one more thing of the row above; the last two change the counting of the tuned one."""

_SMDM = Source("Nie et al. 2024 (SMDM), figure 2", "computed", "digitised; 6 N D, N non-embedding; one learning rate")

SMDM_LINES: Mapping[str, Line] = {
    "loss of masked diffusion": Line(-0.06251, 3.9174),
    "loss of autoregressive": Line(-0.06424, 3.8219),
    "N_opt of masked diffusion": Line(0.629, -8.9686),
    "N_opt of autoregressive": Line(0.642, -8.9040),
}
"""Lines through its ten optima. One learning rate and batch for all sizes inflates the exponents of N_opt (Porian)."""

SMDM_CLAIMS = Constants(
    {"compute_gap": 16.0, "size_ratio": 2.0}, Source("Nie et al. 2024 (SMDM)", "paper", "masked diffusion against AR")
)

QUOKKA_EXPONENT = Exponents(
    0.5, None, Source("arXiv 2510.03280 (Quokka)", "paper", "abstract: N_opt of diffusion models")
)

GADRE_ERRORS: Mapping[str, float] = {"1.4B, M=640": 0.007103, "6.9B, M=20": 0.007320}
"""Relative errors of extrapolated C4 losses after training on RedPajama (Gadre et al. 2024, released notebook)."""
