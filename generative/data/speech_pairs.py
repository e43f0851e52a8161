"""Folders of clean and noisy files that belong together, and the published corpora that come as such folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from generative.data.found import NAMED
from generative.data.speech_config import EarsWhamConfig, PairsSpeechConfig, VoiceBankConfig
from generative.data.speech_files import find_sounds
from generative.data.speech_pack import Job
from generative.data.speech_split import held_out, matches
from generative.errors import DataError

CleanName = Callable[[str], str]
"""From the name of a noisy file (its path in its folder without the suffix) to that of its clean file."""

_FOLDERS = {"train": "train", "validation": "valid", "test": "test"}


def pair_up(clean: Path, noisy: Path, clean_name: CleanName = lambda name: name) -> dict[str, tuple[Path, Path]]:
    """(clean, noisy) files by the noisy one's name, in order; wav and flac may be mixed.

    Raises:
        DataError: a missing folder, a file without partner, or two files of one name.
    """
    speech, mixed = _by_name(clean), _by_name(noisy)
    partners = {name: clean_name(name) for name in mixed}
    alone = [f"{noisy.name}/{name}" for name, partner in partners.items() if partner not in speech]
    alone += [f"{clean.name}/{name}" for name in speech if name not in set(partners.values())]
    if alone:
        raise DataError(
            f"{noisy.parent}: {len(alone)} files have no partner: {', '.join(alone[:NAMED])}"
            + (", ..." if len(alone) > NAMED else ""),
            expected=f"for each file below {clean.name}/ one of the same path below {noisy.name}/, and the reverse",
            remedy="add the missing files, remove the others, or correct data.clean and data.noisy",
        )
    return {name: (speech[partner], mixed[name]) for name, partner in partners.items()}


def _by_name(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in find_sounds(root, "data.path, data.clean or data.noisy"):
        name = path.relative_to(root).with_suffix("").as_posix()
        if name in found:
            raise DataError(
                f"{root}: two files are called {name}", expected="names that differ", remedy="remove one of them"
            )
        found[name] = path
    return found


def pair_job(part: str, pairs: Mapping[str, tuple[Path, Path]], names: Sequence[str] | None = None) -> Job:
    """The tracks PART.clean and PART.noisy of some pairs (None: all)."""
    chosen = tuple(pairs if names is None else names)
    return Job((f"{part}.clean", f"{part}.noisy"), chosen, tuple(pairs[name] for name in chosen))


def folder_jobs(config: PairsSpeechConfig) -> list[Job]:
    """Jobs of {train,valid,test}/{clean,noisy}, or of {clean,noisy} with some held out; both may lack a test part.

    Raises:
        DataError: as `pair_up`; a pattern that fits nothing.
    """
    root = config.path
    if not (root / "train").is_dir():
        return _hold_out(pair_up(root / config.clean, root / config.noisy), config)
    parts = {
        part: pair_up(root / folder / config.clean, root / folder / config.noisy)
        for part, folder in _FOLDERS.items()
        if (root / folder).is_dir()
    }
    jobs = _hold_out(parts["train"], config) if "validation" not in parts else [pair_job("train", parts["train"])]
    return jobs + [pair_job(part, pairs) for part, pairs in parts.items() if part != "train"]


def _hold_out(pairs: Mapping[str, tuple[Path, Path]], config: PairsSpeechConfig) -> list[Job]:
    names = list(pairs)
    if not config.validation_files:
        train, validation = held_out(names, config.validation_fraction, config.path.name)
        parts = {"train": [names[n] for n in train], "validation": [names[n] for n in validation]}
    else:
        parts = by_pattern(names, config.validation_files, str(config.path), "data.validation_files")
    return [pair_job(part, pairs, chosen) for part, chosen in parts.items()]


def by_pattern(names: Sequence[str], patterns: Sequence[str], where: str, key: str) -> dict[str, list[str]]:
    """Names of the parts "train" and "validation", of which the latter fit. Raises DataError where one is empty."""
    parts = {
        "train": [name for name in names if not matches(name, patterns)],
        "validation": [name for name in names if matches(name, patterns)],
    }
    empty = [part for part, chosen in parts.items() if not chosen]
    if empty:
        raise DataError(
            f"{where}: {key}={list(patterns)} leaves no file for {empty[0]} (of {len(names)}; the first is {names[0]})",
            expected="patterns that fit some of the files",
            remedy=f"correct {key}",
        )
    return parts


def voicebank_jobs(config: VoiceBankConfig) -> list[Job]:
    """VoiceBank-DEMAND from its four folders; the validation speakers are taken out of the training set.

    Raises:
        DataError: missing folders, files without partner, unknown speakers.
    """
    trained = pair_up(_folder(config, "clean_trainset_28spk_wav"), _folder(config, "noisy_trainset_28spk_wav"))
    tested = pair_up(_folder(config, "clean_testset_wav"), _folder(config, "noisy_testset_wav"))
    patterns = [f"{speaker}_*" for speaker in config.validation_speakers]
    parts = by_pattern(list(trained), patterns, str(config.path), "data.validation_speakers")
    return [pair_job(part, trained, chosen) for part, chosen in parts.items()] + [pair_job("test", tested)]


def _folder(config: VoiceBankConfig, name: str) -> Path:
    """The folder itself, or what an archive unpacked within it (NAME/NAME)."""
    folder = config.path / name
    return folder / name if (folder / name).is_dir() else folder


def ears_wham_jobs(config: EarsWhamConfig) -> list[Job]:
    """EARS-WHAM from {train,valid,test}/{clean,noisy}; a noisy file's name ends with its SNR.

    Raises:
        DataError: missing folders, files without partner.
    """
    return [
        pair_job(part, pair_up(config.path / folder / "clean", config.path / folder / "noisy", before_snr))
        for part, folder in _FOLDERS.items()
    ]


def before_snr(name: str) -> str:
    """Clean name of EARS-WHAM's noisy one: "p002/00001_-2.5dB" becomes "p002/00001"."""
    path = PurePosixPath(name)
    return (path.parent / path.name.split("_")[0]).as_posix()
