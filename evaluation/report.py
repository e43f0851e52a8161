"""One self-contained page that tells a run: built from the run folder's files only, at any moment of its life.

The page holds its style, script and data, and loads nothing (`evaluation.reporting.page`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.reporting import pictures, sections, sounds
from evaluation.reporting.along import along_charts
from evaluation.reporting.chart import Chart
from evaluation.reporting.charts import learning_charts, machine_charts, noise_charts
from evaluation.reporting.figures import dot_plot, figure_table, figures, infilling
from evaluation.reporting.folder import Run, read_run
from evaluation.reporting.markup import Html, element, join, moment
from evaluation.reporting.page import Section, page, section, write_page
from evaluation.reporting.replay import players, samples
from evaluation.reporting.terms import term_charts
from evaluation.reporting.watch import DISTANCE_CHARTS, watch_charts

SOUND_STYLES = ("sounds.css",)
LISTEN_NOTE = "Spectrograms of one utterance share a scale of 80 dB: the brighter, the louder."
WATCH_NOTE = (
    "Samples drawn on the way beside as many training samples, by the distances between them. Upright lines: alarms."
)
MEASURED_NOTE = "Measured of the samples that were drawn on the way, against completed steps."
ALONG_NOTE = (
    "Checkpoints with each of their averages, all measured on samples of the same noise. RUN/best holds the lowest "
    "Fréchet distance; the lowest of many is in part a lucky one."
)
NEIGHBOURS_NOTE = (
    "Below each sample lies the training image nearest to it. A copy would look equal to the image below it; a new "
    "sample shares its kind, and differs in shape or detail."
)
LOSS_NOTE = "Where along the way from clean to noise the loss comes from."
RATIO_NOTE = (
    "The density ratio can be trusted where its mean is near 1, the effective sample size not near 0, and the "
    "discriminator's AUC not near 1."
)
TERMS_NOTE = "What the losses are made of, in training batches, against completed steps."


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run folder and return its path; the old one is replaced in one move.

    Parts that the folder does not hold (yet) are left out, and damaged lines are passed over and counted.

    Raises:
        RunFolderError: there is no such folder, or the page cannot be written into it.
    """
    path = Path(run_dir) / "report.html"
    write_page(path, build_report(read_run(Path(run_dir))))
    return path


def build_report(run: Run) -> str:
    """The page as text."""
    charts = {
        "learning": learning_charts(run),
        "noise": noise_charts(run),
        "watch": watch_charts(run),
        "along": along_charts(run),
        "terms": term_charts(run),
        "machine": machine_charts(run),
    }
    place, replays = players(run)
    replay = section("replay", "Step by step", _replay_note(replays), join([place, _infill_figures(run)]))
    listen = _listen(run)
    shown = [part for part in (listen, *_parts(run, charts, replay)) if part]
    return page(
        f"{run.name} · run report",
        sections.header(run),
        shown,
        _footer(run),
        {"charts": [chart for group in charts.values() for chart in group], "replays": replays},
        SOUND_STYLES if listen else (),
        sounds=listen is not None,
    )


def _listen(run: Run) -> Section | None:
    """Sounds, where a run has some: they tell most."""
    newest, heard = sounds.listen(run)
    return section("listen", "Listen", f"{_samples_note(newest, 'Enhanced')} {LISTEN_NOTE}", heard)


def _parts(run: Run, charts: dict[str, list[Chart]], replay: Section | None) -> list[Section | None]:
    """The sections in their order: pictures come first, since they tell most; texts come after their making."""
    pictured = pictures.drawn(run)
    newest = pictured[-1][0] if pictured else (run.samples[-1] if run.samples else {})
    seen = join([pictures.growth([grids for _, grids in pictured]), samples(run)])
    looks = [
        section("samples", "Samples", _samples_note(newest), seen),
        section("neighbours", "Nearest training images", NEIGHBOURS_NOTE, pictures.neighbours(run), "Neighbours"),
        section("along", "Figures along the training", ALONG_NOTE, _charts(charts["along"]), "Along"),
        _watched(charts["watch"]),
    ]
    # One update reports a number or two, which stand among the others; several have a section for theirs.
    terms, machine = charts["terms"], charts["machine"]
    terms, machine = (terms, machine) if len(run.updates) > 1 else ([], [*machine, *terms])
    return [
        *(looks if pictured else ()),
        section("learning", "Learning", _learning_note(charts["learning"]), _charts(charts["learning"])),
        section("noise", "Noise levels", _noise_note(charts["noise"]), _charts(charts["noise"])),
        replay,
        *(() if pictured else looks),
        section("terms", "Terms and scores", TERMS_NOTE, _charts(terms)),
        section("machine", "Optimizer and machine", "", _charts(machine)),
        section("figures", "Figures", "", _figures(run)),
        section("events", "Events", "", sections.events(run)),
        section("settings", "Settings", "", join([sections.configuration(run), sections.environment(run)])),
    ]


def _watched(charts: list[Chart]) -> Section | None:
    """What was measured of samples: modes and copies of images and points, other figures of anything else."""
    distances = any(chart["id"] in DISTANCE_CHARTS for chart in charts)
    title, note = ("Modes and copies", WATCH_NOTE) if distances else ("Samples along the training", MEASURED_NOTE)
    return section("watch", title, note, _charts(charts))


def _charts(charts: list[Chart]) -> Html:
    places = [sections.chart_place(chart) for chart in charts]
    return element("div", places, class_="charts one" if len(places) == 1 else "charts") if places else Html("")


def _learning_note(charts: list[Chart]) -> str:
    marks = any(chart["marks"] for chart in charts)
    text = "Loss against completed steps. Band and bars: two standard errors, about 95 %."
    return f"{text} Dashed lines: where the run was stopped, restarted or resumed." if marks else text


def _noise_note(charts: list[Chart]) -> str:
    losses = any(chart["y"]["label"] == "loss" for chart in charts)
    ratios = any(chart["id"].endswith("ratio_by_time") for chart in charts)
    told = [LOSS_NOTE if losses else "", RATIO_NOTE if ratios else "", "Bands: two standard errors."]
    return " ".join(filter(None, told))


def _replay_note(replays: list[dict[str, object]]) -> str:
    steps = max((len(r["steps"]) for r in replays if isinstance(r["steps"], list)), default=0)
    return f"From masked to written in {steps} network calls at most. Blocks are still masked." if replays else ""


def _samples_note(newest: Mapping[str, Any], made: str = "Drawn") -> str:
    facts = [f"{made} after step {newest.get('step')}" if newest.get("step") else "", f"weights: {newest.get('model')}"]
    return ", ".join(filter(None, facts)) + "." if newest else ""


def _infill_figures(run: Run) -> Html:
    found = infilling(run)
    if len(found) < 2:
        return Html("")
    unit = found[0].estimate.unit
    title = f"Loss of a masked span, {unit}" if unit else "Loss of a masked span"
    told = [found[0].estimate.protocol, "Lower is better; bars: two standard errors"]
    note = element("p", f"{'. '.join(filter(None, told))}.", class_="quiet")
    plot = dot_plot(found, title, found[0].key)
    return element("div", element("p", title, class_="label"), plot, note, class_="against narrow")


def _figures(run: Run) -> Html:
    return element("div", figure_table(run), class_="scroll", tabindex="0", role="region") if figures(run) else Html("")


def _footer(run: Run) -> Html:
    damaged = f" {run.damaged:,} unreadable lines were passed over." if run.damaged else ""
    return element("p", f"Built {moment(time.time())} from {run.path.name}/. This page loads nothing.{damaged}")
