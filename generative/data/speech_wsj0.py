"""The benchmarks that are made from a local copy of WSJ0: noise of CHiME3 added, or simulated rooms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from generative.data.speech_config import Wsj0ChimeConfig, Wsj0ReverbConfig
from generative.data.speech_draws import below
from generative.data.speech_files import Signal, find_sounds
from generative.data.speech_pack import Job
from generative.data.speech_rooms import convolved, draw_room, impulse_responses
from generative.data.speech_split import PARTS
from generative.errors import DataError
from generative.randomness import Streams

SETS = {"train": "si_tr_s", "validation": "si_dt_05", "test": "si_et_05"}
_TAIL = 0.5
"""Seconds of silence that the dry target may gain after its end (WSJ0-REVERB)."""
_PEAK = 0.9


def wsj0_files(root: Path) -> dict[str, tuple[tuple[str, ...], tuple[Path, ...]]]:
    """Names and files of each part.

    Raises:
        DataError: one of the three folders is missing, there is more than one of it, or it has no wav or flac file.
    """
    return {part: _set(root, folder) for part, folder in SETS.items()}


def _set(root: Path, name: str) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    found = [path for path in (root, *sorted(root.glob("**"))) if path.name == name and path.is_dir()]
    if len(set(found)) != 1:
        raise DataError(
            f"{root}: {len(set(found))} folders are called {name}",
            expected=f"one each of {', '.join(SETS.values())}",
            remedy="correct data.wsj0 (the folder that holds them, at any depth)",
        )
    paths = find_sounds(found[0], "data.wsj0")
    return tuple(path.relative_to(found[0]).with_suffix("").as_posix() for path in paths), tuple(paths)


def chime_jobs(config: Wsj0ChimeConfig) -> list[Job]:
    """Tracks PART.speech and "noise": they are mixed when they are read, always alike.

    Raises:
        DataError: missing folders, or no background of channel 1.
    """
    speech = [
        Job((f"{part}.speech",), names, tuple((path,) for path in paths))
        for part, (names, paths) in wsj0_files(config.wsj0).items()
    ]
    noise = find_sounds(config.chime3, "data.chime3", ("**/*.CH1.*",))
    names = tuple(path.relative_to(config.chime3).as_posix() for path in noise)
    return [*speech, Job(("noise",), names, tuple((path,) for path in noise))]


def reverb_jobs(config: Wsj0ReverbConfig) -> list[Job]:
    """Tracks PART.clean (dry) and PART.noisy (reverberant); each utterance has a room of its own.

    Raises:
        DataError: missing folders.
    """
    files = wsj0_files(config.wsj0)
    return [
        Job(
            (f"{part}.clean", f"{part}.noisy"),
            files[part][0],
            tuple((path,) for path in files[part][1]),
            Reverberant(part, config.sample_rate, config.t60),
        )
        for part in PARTS
    ]


class Reverberant:
    """Puts utterance `number` of a part into room `number` of the part's stream; see `speech_rooms`.

    Args:
        part: names the stream.
        rate: in Hz.
        t60: range of reverberation times in s.
    """

    def __init__(self, part: str, rate: int, t60: tuple[float, float]) -> None:
        self.streams, self.rate, self.t60 = Streams(100).within(f"wsj0_reverb/{part}"), rate, t60

    def __call__(self, number: int, signals: Sequence[Signal]) -> tuple[Signal, Signal]:
        """Dry and reverberant [T'], scaled so that the latter's peak is 0.9."""
        room = draw_room(number, self.streams, self.t60)
        wet, dry = impulse_responses(room, self.rate, below(self.streams, "rays", number, 2**32))
        (signal,) = signals
        length = min(len(signal) + len(wet) - 1, len(signal) + round(_TAIL * self.rate))
        noisy, clean = convolved(signal, wet, length), convolved(signal, dry, length)
        scale = np.float32(_PEAK) / np.abs(noisy).max()
        return clean * scale, noisy * scale
