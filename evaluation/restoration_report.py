"""The report of restorations: measurement, samples, mean and spread of each image, with what they cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.estimate import mean_estimate
from evaluation.reporting.markup import Html, element, fact_list, join, moment, text_table
from evaluation.reporting.page import page, section
from evaluation.reporting.pictures import picture_row

SHOWN, SAMPLES = 24, 4
"""Images in the page, and samples of each; all are in the folder."""
WIDTH = 112
"""Of a picture: truth, measurement, four samples, mean and spread stand in one row."""

IMAGES_NOTE = (
    "From left to right: the truth where it is known, what was measured, samples of what it may have been, their mean "
    "(nearest on average, and blurred where samples disagree), and their standard deviation (white is its greatest "
    "value in the image)."
)
NUMBERS_NOTE = (
    "Residual: |y - A x| over what noise alone would leave; near 1 is right, far above 1 the measurement is not "
    "explained. Spread: standard deviation of pixels between samples, images being in [-1, 1]. Coverage: share of "
    "pixels whose truth lies in the samples' central 90 % interval; n samples of the true posterior reach about "
    "0.9 (n - 1) / (n + 1)."
)
COST_NOTE = (
    "Of one sample: rows are evaluations of the network, vjps products with its Jacobian (about two rows each), "
    "decoder and encoder likewise. Paper nfe: what papers of the method count, some of these only."
)
COLUMNS = {
    "residual": "residual",
    "spread": "spread",
    "psnr_mean": "PSNR of the mean (dB)",
    "psnr": "PSNR of samples (dB)",
    "ssim": "SSIM of samples",
    "coverage": "coverage",
}
REMARKS = {"psnr_mean": "PSNR of the mean (dB):", "coverage": "coverage:", "residual": "residual:"}
"""What stands under an image's name, where it is known."""


def build_restoration_report(folder: Path, lines: Sequence[Mapping[str, Any]], facts: Mapping[str, str]) -> str:
    """The page as text.

    Args:
        folder: of the results; pictures of an image lie in a folder of its name.
        lines: records of images, in the order that they are shown in.
        facts: short ones by name.
    """
    count = f"{len(lines):,} image{'s' if len(lines) > 1 else ''} restored"
    header = join(
        [
            element("p", "Restoration report", class_="eyebrow"),
            element("h1", count),
            fact_list(facts),
        ]
    )
    more = f" The first {SHOWN} of {len(lines):,} are shown." if len(lines) > SHOWN else ""
    figures = [_images(folder, line) for line in lines[:SHOWN]]
    parts = [
        section("images", "Images", IMAGES_NOTE + more, element("div", figures), "Images"),
        section("numbers", "Numbers", NUMBERS_NOTE, _numbers(lines)),
        section(
            "cost",
            "Cost",
            COST_NOTE,
            text_table(("what", "by sample"), cost_rows(lines, "seconds of an image (all samples)")),
        ),
    ]
    footer = element("p", f"Built {moment(time.time())}. This page loads nothing.")
    title = f"{count} · restoration report"
    return page(title, header, [part for part in parts if part], footer, {"charts": [], "replays": []})


def _images(folder: Path, line: Mapping[str, Any]) -> Html:
    name = str(line["file"])
    samples = [file for file in line["files"] if file.startswith("sample_")][:SAMPLES]
    wanted = ["truth.png", "measurement.png", *samples, "mean.png", "std.png"]
    captions = {file: caption(file) for file in wanted if file in line["files"]}
    if "std.png" in captions:
        captions["std.png"] = f"std, up to {line['spread_max']:.2g}"
    found = {word: _value(line, key) for key, word in REMARKS.items()}
    remark = " · ".join(f"{word} {value:.3g}" for word, value in found.items() if value is not None)
    return picture_row(name, folder / Path(name).with_suffix(""), captions, WIDTH, remark)


def caption(file: str) -> str:
    """What a picture's name says."""
    return file.removesuffix(".png").replace("_", " ")


def _value(line: Mapping[str, Any], key: str) -> float | None:
    value = line.get(key)
    if isinstance(value, list):
        return sum(value) / len(value) if value else None
    return None if value is None else float(value)


def _numbers(lines: Sequence[Mapping[str, Any]]) -> Html:
    there = [key for key in COLUMNS if any(_value(line, key) is not None for line in lines)]
    values = {key: [v for line in lines if (v := _value(line, key)) is not None] for key in there}
    means = ["mean over images", *(str(mean_estimate(values[key])) for key in there)]
    rows = [means]
    for line in lines:
        found = [_value(line, key) for key in there]
        rows.append([str(line["file"]), *("" if value is None else f"{value:.3g}" for value in found)])
    return text_table(("image", *(COLUMNS[key] for key in there)), rows)


def cost_rows(lines: Sequence[Mapping[str, Any]], time_of: str) -> list[list[str]]:
    """Means of each count and of the seconds, as rows of a table."""
    keys = [key for key in lines[0]["cost"] if key != "calls"]
    rows = [
        [key.replace("_", " "), f"{mean_estimate([line['cost'][key] for line in lines]).value:,.4g}"] for key in keys
    ]
    seconds = mean_estimate([line["seconds"] for line in lines], "s")
    return [*rows, [time_of, str(seconds)]]
