"""Laws of each domain from Henighan et al. 2020: Table 1 and Table 3. N non-embedding; C in PF-days inside the rows.

A vanishing floor ("Language") means that none was identified, not that the entropy of text is zero. The two text rows
of multimodal models have no L(C) of their own: it holds for the joint loss, 9 x image + text.
"""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.scaling.forms import PF_DAY, PowerLaw


@dataclass(frozen=True)
class Domain:
    """One row of Table 1.

    Args:
        name: of the domain.
        size: (floor, N0, exponent) of L(N).
        compute: (floor, C0 in PF-days, exponent) of L(C), or None.
        best_size: (C0 in PF-days, exponent) of N_opt(C) = (C / C0)^exponent, or None.
    """

    name: str
    size: tuple[float, float, float]
    compute: tuple[float, float, float] | None
    best_size: tuple[float, float] | None

    @property
    def L_N(self) -> PowerLaw:  # noqa: N802
        """Nats per token of N parameters with unlimited data and compute."""
        return PowerLaw(*self.size)

    @property
    def L_C(self) -> PowerLaw | None:  # noqa: N802
        """Nats per token of C FLOPs spent best."""
        if self.compute is None:
            return None
        floor, C0, exponent = self.compute
        return PowerLaw(floor, C0 * PF_DAY, exponent)

    def optimum(self, C: float) -> tuple[float, float] | None:
        """N_opt, and the tokens C / (6 N_opt), of C FLOPs; None for rows without them."""
        if self.best_size is None:
            return None
        C0, exponent = self.best_size
        N = (C / (C0 * PF_DAY)) ** exponent
        return N, C / (6 * N)


HENIGHAN: tuple[Domain, ...] = (
    Domain("Language", (0.0, 1.47e14, 0.070), (0.0, 3.47e8, 0.048), (3.3e-13, 0.73)),
    Domain("Image 8x8", (3.12, 8.0e1, 0.24), (3.13, 1.8e-8, 0.19), (5.3e-14, 0.64)),
    Domain("Image 16x16", (2.64, 2.8e2, 0.22), (2.64, 1.6e-8, 0.16), (4.8e-12, 0.75)),
    Domain("Image 32x32", (2.20, 6.3e1, 0.13), (2.21, 3.6e-9, 0.10), (1.6e-13, 0.65)),
    Domain("Image VQ 16x16", (3.99, 2.7e4, 0.13), (4.09, 6.1e-7, 0.11), (6.2e-14, 0.64)),
    Domain("Image VQ 32x32", (3.07, 1.9e4, 0.14), (3.17, 2.6e-6, 0.12), (9.4e-13, 0.70)),
    Domain("Text-to-Im (Text)", (0.0, 5.6e8, 0.037), None, None),
    Domain("Text-to-Im (Image)", (2.0, 5.1e3, 0.16), (1.93, 1.5e-6, 0.15), (9.4e-13, 0.70)),
    Domain("Im-to-Text (Text)", (0.0, 7.0e8, 0.039), None, None),
    Domain("Im-to-Text (Image)", (2.0, 5.5e3, 0.15), (1.97, 1.5e-6, 0.16), (3.3e-12, 0.72)),
    Domain("Video VQ 16x16x16", (1.01, 3.7e4, 0.24), (0.95, 2.2e-5, 0.14), (1.13e-12, 0.71)),
    Domain("Math (Extrapolate)", (0.28, 1.1e4, 0.16), (0.14, 1.4e-5, 0.17), (2.3e-12, 0.69)),
)


@dataclass(frozen=True)
class PerImage:
    """A row of Table 3: nats an image, floor + (C / C0)^-exponent with C in PF-days."""

    name: str
    C0: float
    exponent: float
    floor: float

    @property
    def law(self) -> PowerLaw:
        """Nats an image over FLOPs."""
        return PowerLaw(self.floor, self.C0 * PF_DAY, self.exponent)


HENIGHAN_IMAGES: tuple[PerImage, ...] = (
    PerImage("8x8", 1.9e3, 0.19, 602),
    PerImage("16x16", 1.7e10, 0.16, 2026),
    PerImage("32x32", 2.7e26, 0.10, 6806),
    PerImage("64x64 VQ16", 4.7e15, 0.11, 1047),
    PerImage("64x64 VQ32", 3.1e19, 0.12, 3246),
)


def size_bound_by_data(C: float) -> tuple[float, float]:
    """The paper's inconsistency, 16x16 images: N_opt = 2.8e8 C^0.74 and the data D at which C(D) = 5e-42 D^3.9.

    Args:
        C: FLOPs.

    Returns:
        N_opt and D. Where L(C) falls below L(D(C)), the extrapolated law promises more than the data hold.
    """
    pf_days = C / PF_DAY
    return 2.8e8 * pf_days**0.74, (pf_days / 5e-42) ** (1 / 3.9)
