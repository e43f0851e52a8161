"""`generative gallery`: cards of all runs below a folder, and of reports that other commands have left there."""

from __future__ import annotations

from pathlib import Path

from evaluation.gallery import MAX_BYTES, write_gallery
from evaluation.reporting.card import run_card
from evaluation.reporting.folder import Run, read_run
from evaluation.reporting.other_report import report_card
from evaluation.reporting.sounds import Room
from generative.config import config_folder, known_names
from generative.errors import RunFolderError
from launch.configs_cli import purpose
from launch.status import folders_with

RUN, REPORT, PAGE = "status.json", "report.html", "gallery.html"


def make_gallery(root: Path, out: Path | None = None) -> tuple[Path, int, int]:
    """Write the page, into the folder where no other place is given.

    Args:
        root: a run, or a folder with runs in it.
        out: the page.

    Returns:
        Its path, the number of runs and that of other reports.

    Raises:
        RunFolderError: there is no such folder, nothing in it, or the page cannot be written.
    """
    places = list(folders_with(root, (RUN, REPORT))) if root.is_dir() else []
    if not places:
        raise RunFolderError(
            f"{root}: {'there are no runs in it' if root.is_dir() else 'there is no such folder'}",
            "a run folder, or a folder with runs or reports in it, at any depth",
            "train something (generative train masked_diffusion/quickstart), or correct the path",
        )
    path, room = out or root / PAGE, Room(MAX_BYTES)
    runs = [read_run(place) for place in places if (place / RUN).is_file()]
    cards = [run_card(run, about(run.name), room, _told(run, root)) for run in runs]
    found = (report_card(place / REPORT, room) for place in places if not (place / RUN).is_file())
    others = [card for card in found if card is not None]
    write_gallery(path, cards, others, root.as_posix())
    return path, len(cards), len(others)


def about(name: str) -> str:
    """What the configuration of that name is for; empty for one that does not come with the package."""
    first = name.partition("+")[0]
    said = purpose(config_folder() / f"{first}.yaml") if first in known_names() else ""
    return f"{said}." if said and not said.endswith(".") else said


def _told(run: Run, root: Path) -> str:
    """Where a run lies below the folder, unless its name says so."""
    place = run.path.relative_to(root).as_posix()
    return "" if place in (run.name, ".") else place
