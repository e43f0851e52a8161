"""Everything that `generative measure-erasure` measures, in its order: images, their figures, attacks; and the page."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.erasure.attack_settings import AttackSettings
from evaluation.erasure.prompts import read_prompts
from evaluation.erasure_measured import Curve, MeasuredFacts, build_measured_report
from evaluation.estimate import Estimate
from generative.errors import ConfigError, ResourceError
from generative.training.runfolder import explain, replace_file
from launch.erase_attacking import Attacked, attack_all, check_pairs
from launch.erase_figures import AskedFigures, prepare
from launch.erase_measuring import AFTER, BEFORE, Measured, measure, opened_erasure
from launch.erase_victims import check_kind
from launch.ray_map import Progress
from launch.sections import LaunchConfig


@dataclass(frozen=True)
class AskedMeasures:
    """What the command line asks for; see `launch.measure_cli`."""

    folder: Path
    prompts: Path
    detector: str
    attacks: Sequence[AttackSettings] = ()
    pairs: Path | None = None
    figures: AskedFigures = field(default_factory=AskedFigures)
    images: Path | None = None


@dataclass(frozen=True)
class Everything:
    """What was found.

    Args:
        measured: shares of images, before and after.
        figures: further ones of these images.
        attacked: by attack.
    """

    measured: Measured
    figures: Mapping[str, Estimate]
    attacked: Sequence[Attacked]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **self.measured.to_json(),
            "figures": {name: one.to_json() for name, one in self.figures.items()},
            "attacks": {one.settings.name: one.to_json() for one in self.attacked},
        }


def measure_all(asked: AskedMeasures, launch: LaunchConfig, progress: Callable[[str], Progress]) -> Everything:
    """Measure; what is missing is found before anything is drawn.

    Raises:
        ConfigError, CheckpointError, DataError: what is asked for cannot be.
    """
    rows = read_prompts(asked.prompts)
    if asked.attacks:
        model, edits, _, _ = opened_erasure(asked.folder)
        check_kind(model)
        if not edits.erased:
            raise ConfigError(
                f"{asked.folder} has no erasure left to attack: the last one was undone",
                "the folder of an erasure",
                "give another folder, or leave out --attack",
            )
        check_pairs(asked.attacks, asked.pairs)
    further = prepare(asked.figures)
    with _kept(asked, launch) as images:
        measured = measure(asked.folder, asked.prompts, asked.detector, launch, progress("images"), images)
        figures = {} if images is None else further(images, rows)
    attacked: list[Attacked] = []
    if asked.attacks:
        attacked = attack_all(
            asked.folder, rows, measured, asked.detector, asked.attacks, asked.pairs, launch, progress("attacks")
        )
    return Everything(measured, figures, attacked)


@contextmanager
def _kept(asked: AskedMeasures, launch: LaunchConfig) -> Iterator[Path | None]:
    """Where images go: the folder that was asked for, or one for a while where figures need them."""
    images = asked.images
    if images is not None:
        for part in (images / BEFORE, images / AFTER):
            if part.is_dir() and any(part.iterdir()):
                raise ConfigError(f"{part} has files in it", "an empty folder, or none", "give another --keep-images")
        yield images
    elif not asked.figures.any:
        yield None
    elif launch.address is not None:
        raise ConfigError(
            "--fid, --lpips or --clip on a cluster without --keep-images",
            "a folder that all nodes see",
            "name one with --keep-images",
        )
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def lines(found: Everything) -> Iterator[tuple[str, str]]:
    """For the terminal."""
    yield "before", str(found.measured.before)
    yield "after", f"{found.measured.after} ({found.measured.after.protocol})"
    for name, one in found.figures.items():
        yield name, f"{one} ({one.protocol})"
    for attacked in found.attacked:
        told = ", ".join(f"{'any' if math.isinf(rho) else f'{rho:g}'}: {one}" for rho, one in attacked.by_norm)
        yield attacked.settings.name, f"by norm {told} ({attacked.settings.protocol})"


def write_page(path: Path, asked: AskedMeasures, found: Everything) -> None:
    """The report. Raises ResourceError: it cannot be written."""
    curves = [Curve(one.settings.name, one.by_norm[0][1].protocol, one.by_norm) for one in found.attacked]
    told = MeasuredFacts(
        asked.folder.name,
        {"before": found.measured.before, "after": found.measured.after},
        curves,
        found.figures,
        {"Prompts": f"{asked.prompts.name}, {found.measured.after.n:,}", "Detector": asked.detector},
    )
    try:
        replace_file(path, build_measured_report(told).encode(errors="replace"), durable=False)
    except OSError as error:
        raise ResourceError(*explain(error, f"write {path}")) from error
