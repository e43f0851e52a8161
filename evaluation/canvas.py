"""Empty figures in the report's style, and their bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from evaluation.scaling.points import Floats
from generative.errors import ConfigError

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#777777"
"""Told apart by colour-blind readers too (Okabe and Ito)."""

STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "scaling",
}


def canvas(columns: int = 1, width: float = 4.6, height: float = 3.4) -> tuple[Any, list[Any]]:
    """A figure and its axes side by side, in inches.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "matplotlib is not installed, so there are no figures",
            expected="matplotlib 3.9 or newer",
            remedy="pip install 'generative[scaling]'",
        ) from error
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width * columns, height), layout="constrained")
        axes = np.atleast_1d(np.asarray(figure.subplots(1, columns), dtype=object))
    return figure, list(axes)


def rendered(figure: Any, kind: Literal["svg", "png"] = "svg", dpi: int = 144) -> bytes:
    """The same bytes for the same figure: no date, fixed identifiers."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE), io.BytesIO() as file:
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(file, format=kind, dpi=dpi, metadata=metadata)
        return file.getvalue()


def label(axes: Any, x: str, y: str, title: str = "", *, log: str = "") -> None:
    """Names of the axes; `log` holds the letters of logarithmic ones."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title)
    if "x" in log:
        axes.set_xscale("log")
        few_ticks(axes.xaxis)
    if "y" in log:
        axes.set_yscale("log")
        few_ticks(axes.yaxis)


def few_ticks(axis: Any) -> None:
    """Few enough numbers on a logarithmic axis that none overlap.

    At decades where there are more than two of them, at 1, 2 and 5 where there is most of one, else evenly.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    class Ticks(LogLocator):
        def tick_values(self, low: float, high: float) -> Any:
            span = np.log10(high / low)
            if span <= 0.7:
                return MaxNLocator(5).tick_values(low, high)
            self.set_params(subs=[1.0] if span > 2 else [1.0, 2.0, 5.0])
            return super().tick_values(low, high)

    axis.set_major_locator(Ticks())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}".replace("e+", "e")))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def budget_colours(budgets: Sequence[float] | Floats) -> dict[float, Any]:
    """From dark (small) to light (large)."""
    from matplotlib import colormaps

    ordered = sorted(float(budget) for budget in budgets)
    shades = colormaps["viridis"](np.linspace(0.0, 0.88, max(len(ordered), 1)))
    return dict(zip(ordered, shades, strict=True))


def band(axes: Any, x: Floats, draws: Floats, colour: str, levels: Sequence[float] = (0.95, 0.8)) -> None:
    """Shaded percentile intervals of draws float64[R, m] over x float64[m]."""
    for level in levels:
        low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
        axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0, label=f"{level:.0%} interval")


def note(axes: Any, text: str) -> None:
    """A remark in the corner: what is missing, what to beware of."""
    axes.text(0.02, 0.02, text, transform=axes.transAxes, fontsize=7.5, color=ORANGE, va="bottom")


def nothing(axes: Any, text: str) -> None:
    """In place of data that are not there yet."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)


def legend(axes: Any, *, outside: bool = False) -> None:
    """Of what has a name, beside the axes where they are full; nothing where nothing has a name."""
    handles, names = axes.get_legend_handles_labels()
    unique = dict(zip(names, handles, strict=True))
    place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if outside else {}
    if unique:
        axes.legend(unique.values(), unique.keys(), **place)
