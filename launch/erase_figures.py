"""Further figures of the images that an erasure was measured on: FID, LPIPS, CLIP score; and what each needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.erasure.clip import ClipScore
from evaluation.erasure.detectors import lpips_alex
from evaluation.erasure.folders import folder_clip, folder_fid, folder_lpips, image_files, open_features
from evaluation.erasure.prompts import PromptRow
from evaluation.estimate import Estimate
from generative.data.cache import default_cache
from generative.errors import ConfigError
from launch.erase_measuring import AFTER, BEFORE

Figures = dict[str, Estimate]


@dataclass(frozen=True)
class AskedFigures:
    """What the command line asks for; see `launch.erase_cli.measure`.

    Args:
        fid: extractor's name.
        real: folder of real images.
        lpips: of pairs from equal seeds.
        clip: model of the CLIP score.
    """

    fid: str | None = None
    real: Path | None = None
    lpips: bool = False
    clip: str | None = None

    @property
    def any(self) -> bool:
        """Whether images are needed."""
        return bool(self.fid or self.lpips or self.clip)


def prepare(asked: AskedFigures) -> Callable[[Path, Sequence[PromptRow]], Figures]:
    """Open all that the figures need, before images are drawn: what measures (folder with before and after, prompts).

    Raises:
        ConfigError: --real without --fid, or an unknown extractor.
        DataError: a package, weights or real images that are not there.
    """
    if asked.real is not None and asked.fid is None:
        raise ConfigError("--real without --fid", "an extractor for FID", "add --fid inception:FILE")
    extractor = None if asked.fid is None else open_features(asked.fid, default_cache().parent / "erasure")
    if asked.real is not None:
        image_files(asked.real)
    distance = lpips_alex() if asked.lpips else None
    score = None if asked.clip is None else ClipScore.open(asked.clip)

    def measure(images: Path, rows: Sequence[PromptRow]) -> Figures:
        before, after = images / BEFORE, images / AFTER
        found: Figures = {}
        if extractor is not None:
            found["FID of after against before"] = folder_fid(after, before, extractor)
            if asked.real is not None:
                for name, folder in ((BEFORE, before), (AFTER, after)):
                    found[f"FID of {name} against {asked.real.name}"] = folder_fid(folder, asked.real, extractor)
        if distance is not None:
            found["LPIPS"] = folder_lpips(before, after, distance)
        if score is not None:
            for name, folder in ((BEFORE, before), (AFTER, after)):
                files = [folder / row.file() for row in rows]
                found[f"CLIP score {name}"] = folder_clip(files, [row.prompt for row in rows], score)
        return found

    return measure
