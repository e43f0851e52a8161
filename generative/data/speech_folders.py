"""Folders of speech and of noise that are mixed on the fly: who speaks, what is held out, which rooms there are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from generative.data.found import NAMED
from generative.data.speech_config import MixSpeechConfig
from generative.data.speech_draws import below
from generative.data.speech_files import Signal, find_sounds
from generative.data.speech_pack import Job
from generative.data.speech_rooms import draw_room, impulse_responses, rooms_available
from generative.data.speech_settings import RoomsConfig
from generative.data.speech_split import PARTS, split_names
from generative.errors import DataError
from generative.randomness import Streams


def mix_jobs(config: MixSpeechConfig) -> list[Job]:
    """Tracks PART.speech, PART.noise where noise files are wanted, and PART.wet with PART.dry where rooms are.

    Raises:
        DataError: missing folders, names that tell no speaker, nothing left for a part.
    """
    jobs = _split(config, config.speech, "speech", config.speaker)
    if config.noises.files and config.noise is not None:
        jobs += _split(config, config.noise, "noise", None)
    if config.rooms is not None and rooms_available():
        jobs += [room_job(part, config.rooms, config.sample_rate) for part in PARTS]
    return jobs


def _split(config: MixSpeechConfig, root: Path, kind: str, speaker: str | None) -> list[Job]:
    paths = find_sounds(root, f"data.{kind}")
    names = [path.relative_to(root).as_posix() for path in paths]
    groups = speakers_of(names, speaker) if kind == "speech" else names
    if len(set(groups)) < len(PARTS):
        groups = names
    patterns = {part: getattr(config, f"{part}_{kind}") for part in ("validation", "test")}
    parts = split_names(names, groups, patterns, str(root), kind)
    return [
        Job((f"{part}.{kind}",), tuple(names[n] for n in numbers), tuple((paths[n],) for n in numbers))
        for part, numbers in parts.items()
    ]


def speakers_of(names: Sequence[str], pattern: str | None) -> list[str]:
    """Speaker of each file by its path below the folder of speech: the pattern's first group, or the first folder.

    Raises:
        DataError: files that the pattern does not fit.
    """
    if pattern is None:
        return [name.split("/")[0] if "/" in name else "" for name in names]
    found = [re.search(pattern, name) for name in names]
    unknown = [name for name, match in zip(names, found, strict=True) if match is None or match[1] is None]
    if unknown:
        raise DataError(
            f"data.speaker={pattern!r} fits {len(names) - len(unknown)} of {len(names)} files, "
            f"but not {', '.join(unknown[:NAMED])}",
            expected="a regular expression whose first group is the speaker, in every path",
            remedy="correct data.speaker, or remove these files",
        )
    return [match[1] for match in found if match is not None]


def room_job(part: str, rooms: RoomsConfig, rate: int) -> Job:
    """Tracks PART.wet and PART.dry: impulse responses of a part's rooms, no part sharing one with another."""
    streams = Streams(0).within(f"rooms/{part}")

    def make(number: int, _: Sequence[Signal]) -> tuple[Signal, Signal]:
        room = draw_room(number, streams, rooms.t60)
        return impulse_responses(room, rate, below(streams, "rays", number, 2**32))

    names = tuple(f"room_{number:04d}" for number in range(rooms.count))
    return Job((f"{part}.wet", f"{part}.dry"), names, ((),) * rooms.count, make, "float32")
