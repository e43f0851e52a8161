"""From a configuration to training, validation and test speech, clean and noisy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from generative.data.documents import digest
from generative.data.speech_config import MadeSpeechConfig, MixSpeechConfig, SpeechDataConfig, Wsj0ChimeConfig
from generative.data.speech_data import Crops, Middles, ReadyPairs, SpeechData, Utterances, check_speech_batch
from generative.data.speech_folders import speakers_of
from generative.data.speech_mix import Fixed, Levels, Mixtures, Rooms
from generative.data.speech_noises import FileNoise, blend
from generative.data.speech_prepare import Progress, prepare_speech
from generative.data.speech_split import PARTS
from generative.data.speech_tracks import SpeechManifest, Track
from generative.data.speech_voices import FileVoice, JoinedVoice, MadeVoice, Voice
from generative.method import DataFacts

__all__ = ["SpeechData", "check_speech_batch", "known_speech_facts", "open_speech", "prepare_speech"]


_FOLDERS = {"cache", "path", "speech", "noise", "wsj0", "chime3"}
"""Settings that differ between machines."""


def known_speech_facts(config: SpeechDataConfig) -> DataFacts:
    """The shape of a sample, (length,), without data."""
    return DataFacts(sample_shape=(config.length,))


def open_speech(
    config: SpeechDataConfig,
    cache: Path | None = None,
    *,
    progress: Progress | None = None,
    verify: bool = False,
) -> SpeechData:
    """Training and held-out speech of a configuration; files are prepared first where that has not been done.

    Arguments are as for `prepare_speech`.

    Raises:
        DataError: missing, unpaired or unsuitable files, a missing package, a full disk.
    """
    if isinstance(config, MadeSpeechConfig):
        made = {part: _made(config, part) for part in PARTS}
        return _data(config, made, "made speech", digest([config.model_dump_json()]))
    folder = prepare_speech(config, cache, progress=progress, verify=verify)
    manifest = SpeechManifest.read(folder)
    tracks = {name: manifest.track(folder, name) for name in manifest.tracks}
    parts = {part: _part(config, part, tracks) for part in PARTS if _has(part, tracks)}
    what = "; ".join([manifest.description, *manifest.notes])
    # What is drawn depends on settings that prepared tracks know nothing of.
    return _data(config, parts, what, digest([manifest.fingerprint, config.model_dump_json(exclude=_FOLDERS)]))


def _has(part: str, tracks: Mapping[str, Track]) -> bool:
    return any(name.startswith(f"{part}.") for name in tracks)


def _data(config: SpeechDataConfig, parts: Mapping[str, Utterances], what: str, fingerprint: str) -> SpeechData:
    # Without a test part the validation part is reported on.
    whole = {part: parts.get(part, parts["validation"]) for part in ("validation", "test")}
    counts = f"{len(parts['train'])} to train on, {len(whole['validation'])} to validate on"
    tested = f"{len(whole['test'])} to report on" if "test" in parts else "these to report on, for want of others"
    return SpeechData(
        train=Crops(parts["train"], config.length),
        validation=Middles(whole["validation"], config.length),
        whole=whole,
        facts=known_speech_facts(config),
        sample_rate=config.sample_rate,
        description=f"{what}, {config.sample_rate} Hz, {counts}, {tested}",
        fingerprint=fingerprint,
    )


def _made(config: MadeSpeechConfig, part: str) -> Mixtures:
    voice = MadeVoice(config.sample_rate, config.seconds)
    size = {"train": config.size, "validation": config.validation_size, "test": config.test_size}[part]
    noise = blend(config.noises, voice, config.sample_rate, None)
    return Mixtures(size, voice, noise, _levels(config, part), f"made_{part}")


def _part(config: SpeechDataConfig, part: str, tracks: Mapping[str, Track]) -> Utterances:
    if isinstance(config, MixSpeechConfig):
        return _mixed(config, part, tracks)
    if isinstance(config, Wsj0ChimeConfig):
        speech = tracks[f"{part}.speech"]
        levels = Levels(*config.snr)
        voice = FileVoice(speech, speech.names, shuffled=False)
        return Fixed(Mixtures(len(speech), voice, FileNoise(tracks["noise"]), levels, part, names=speech.names), part)
    return ReadyPairs(tracks[f"{part}.clean"], tracks[f"{part}.noisy"])


def _mixed(config: MixSpeechConfig, part: str, tracks: Mapping[str, Track]) -> Mixtures:
    speech = tracks[f"{part}.speech"]
    voice = _voice(config, speech)
    noise = blend(config.noises, voice, config.sample_rate, tracks.get(f"{part}.noise"))
    sizes = {"validation": config.validation_size, "test": config.test_size}
    size = sizes.get(part, config.size or len(speech))
    rooms = Rooms(tracks[f"{part}.wet"], tracks[f"{part}.dry"]) if f"{part}.wet" in tracks else None
    return Mixtures(size, voice, noise, _levels(config, part), part, rooms)


def _voice(config: MixSpeechConfig, speech: Track) -> Voice:
    speakers = tuple(speakers_of(speech.names, config.speaker))
    if not config.join:
        return FileVoice(speech, speakers)
    low, high = (round(seconds * config.sample_rate) for seconds in config.gap)
    return JoinedVoice(speech, speakers, (low, high), round(config.seconds * config.sample_rate))


def _levels(config: MadeSpeechConfig | MixSpeechConfig, part: str) -> Levels:
    return Levels(*config.snr) if part == "train" else Levels(turn=config.held_out_snrs)
