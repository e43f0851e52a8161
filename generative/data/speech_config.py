"""Settings of a source of clean and noisy speech. The key that picks the variant is `name`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from generative.config import Config
from generative.config_messages import combination
from generative.data.config import AbsolutePath

Range = tuple[float, float]
Proportion = Annotated[float, Field(ge=0)]


class _Speech(Config):
    """What all sources have in common."""

    sample_rate: int = Field(default=16_000, ge=4_000, le=192_000)
    """Hz of all signals."""
    length: int = Field(default=32_640, ge=256)
    """Samples in a crop: (num_frames - 1) * hop of the method's spectrogram, here of 256 frames and hop 128."""


class NoiseKinds(Config):
    """How often each kind of noise is mixed in; proportions, of any sum."""

    files: Proportion = 1.0
    """Noise files."""
    coloured: Proportion = 0.0
    """Noise whose power falls as 1/f^e, e in [-0.5, 2]; the loudness of every other one changes at 0.5 - 6 Hz."""
    babble: Proportion = 0.0
    """Five other speakers at once."""

    @model_validator(mode="after")
    def _something(self) -> NoiseKinds:
        if self.files + self.coloured + self.babble <= 0:
            raise combination("no kind of noise", "a positive proportion", "set data.noises.coloured=1 (for example)")
        return self


def _ordered(name: str, bounds: Range) -> None:
    if bounds[0] > bounds[1]:
        raise combination(f"{name}={list(bounds)}", "[low, high]", f"set data.{name}=[{bounds[1]},{bounds[0]}]")


class MixingConfig(_Speech):
    """Clean speech and noise that are mixed as they are needed."""

    snr: Range = (0.0, 15.0)
    """Signal-to-noise ratio in dB of training mixtures, drawn uniformly from [low, high]."""
    held_out_snrs: tuple[float, ...] = Field(default=(0.0, 5.0, 10.0, 15.0), min_length=1)
    """SNRs in dB of held-out mixtures, one after the other."""
    seconds: float = Field(default=3.0, gt=0)
    """Length of a held-out mixture where it is put together; whole files keep theirs."""
    validation_size: int = Field(default=64, ge=1)
    """Mixtures to validate on."""
    test_size: int = Field(default=128, ge=1)
    """Mixtures to report on, of speech and noise that neither training nor validation has seen."""

    @model_validator(mode="after")
    def _snr_is_a_range(self) -> MixingConfig:
        _ordered("snr", self.snr)
        return self


class MadeSpeechConfig(MixingConfig):
    """Speech-like signals that the code makes (formants, pitch, pauses) in made noise: works anywhere, offline."""

    name: Literal["made"] = "made"
    size: int = Field(default=2_000, ge=1)
    """Training samples in an epoch."""
    noises: NoiseKinds = NoiseKinds(files=0, coloured=0.6, babble=0.4)
    """Kinds of noise; there are no files."""

    @model_validator(mode="after")
    def _no_files(self) -> MadeSpeechConfig:
        if self.noises.files:
            raise combination(
                f"noises.files={self.noises.files:g} with name=made",
                "0, since made speech has no noise files",
                "set data.noises.files=0, or data.name=mix",
            )
        return self


class _SoundFiles(Config):
    """What sources have in common whose files are read once into a cache."""

    resample: bool = False
    """Bring files of other rates to `sample_rate` by a polyphase low-pass; else they are refused."""
    channel: Literal["refuse", "first", "mean"] = "refuse"
    """Files with several channels: refused, their first channel, or the mean of all."""
    min_seconds: float = Field(default=0.1, ge=0)
    """Shorter files cannot be used."""
    leave_out: bool = False
    """Leave out files that cannot be used, with a message, instead of refusing the data."""
    storage: Literal["int16", "float32"] | None = None
    """Numbers in the cache; null: int16 where that loses nothing, else float32."""
    cache: AbsolutePath | None = None
    """Folder of prepared sound (null: $XDG_CACHE_HOME/generative, or ~/.cache/generative)."""


class PairsSpeechConfig(_Speech, _SoundFiles):
    """Folders of clean and of noisy files (wav, flac), paired by their paths in them."""

    name: Literal["pairs"] = "pairs"
    path: AbsolutePath
    """Holds {train,valid,test}/{clean,noisy}/**, or {clean,noisy}/** to hold out from."""
    clean: str = "clean"
    """Folder of the clean files (dereverberation: anechoic)."""
    noisy: str = "noisy"
    """Folder of the noisy files (dereverberation: reverb)."""
    validation_files: tuple[str, ...] = ()
    """Glob patterns of training files to validate on instead of a fraction ("p226*", "p287*": two speakers)."""
    validation_fraction: float = Field(default=0.05, gt=0, lt=1)
    """Part of the training files to validate on where there is neither a folder nor a pattern."""


class RoomsConfig(Config):
    """Reverberation by simulated rooms (needs pyroomacoustics); the target is the same speech in the dry room."""

    count: int = Field(default=64, ge=1)
    """Rooms of each part; each mixture is drawn one of them."""
    t60: Range = (0.4, 1.0)
    """Reverberation time in s, drawn uniformly."""
    missing: Literal["skip", "refuse"] = "skip"
    """Where pyroomacoustics is not installed: go on without reverberation, with a message, or refuse."""

    @model_validator(mode="after")
    def _t60_is_a_range(self) -> RoomsConfig:
        _ordered("rooms.t60", self.t60)
        if self.t60[0] < 0.1:
            raise combination(f"rooms.t60={list(self.t60)}", "0.1 s or more", "set data.rooms.t60=[0.4,1.0]")
        return self


class MixSpeechConfig(MixingConfig, _SoundFiles):
    """Folders of speech and of noise (wav, flac), mixed on the fly."""

    name: Literal["mix"] = "mix"
    speech: AbsolutePath
    """Folder of clean speech, with all folders below."""
    noise: AbsolutePath | None = None
    """Folder of noise; may be null where noises.files=0."""
    noises: NoiseKinds = NoiseKinds()
    """Kinds of noise."""
    size: int | None = Field(default=None, ge=1)
    """Training samples in an epoch (null: as many as there are files of speech)."""
    speaker: str | None = None
    """Regular expression on a file's path below `speech`; its first group is the speaker (null: the first folder)."""
    join: bool = False
    """Speech is words: each sample joins words of one speaker, equally loud, with pauses between them."""
    gap: Range = (0.02, 0.12)
    """Seconds of the pauses of `join`."""
    validation_speech: tuple[str, ...] = ()
    """Glob patterns of speech to validate on (none: some speakers, or files where there are fewer than three)."""
    test_speech: tuple[str, ...] = ()
    """Glob patterns of speech to report on (none: as for validation)."""
    validation_noise: tuple[str, ...] = ()
    """Glob patterns of noise to validate on (none: a tenth)."""
    test_noise: tuple[str, ...] = ()
    """Glob patterns of noise to report on (none: a fifth)."""
    rooms: RoomsConfig | None = None
    """Reverberation of the speech; null: none."""

    @model_validator(mode="after")
    def _complete(self) -> MixSpeechConfig:
        _ordered("gap", self.gap)
        if self.noises.files and self.noise is None:
            raise combination(
                "noises.files without a folder of noise", "data.noise", "set data.noise=FOLDER, or data.noises.files=0"
            )
        try:
            groups = re.compile(self.speaker or "()").groups
        except re.error as error:
            groups = 0
            raise combination(f"speaker={self.speaker!r}: {error}", "a regular expression", "correct it") from error
        if groups < 1:
            raise combination(
                f"speaker={self.speaker!r} has no group",
                "a regular expression with a group",
                r"put what is the speaker in (): data.speaker='^\d+_([a-z]+)_'",
            )
        return self


class VoiceBankConfig(_Speech, _SoundFiles):
    """VoiceBank-DEMAND (Valentini-Botinhao 2017): 28 speakers; p226 and p287 validate, the test set has two others."""

    name: Literal["voicebank_demand"] = "voicebank_demand"
    path: AbsolutePath
    """Holds {clean,noisy}_trainset_28spk_wav and {clean,noisy}_testset_wav, 48 kHz as published, or resampled."""
    resample: bool = True
    """From the published 48 kHz to `sample_rate`."""
    validation_speakers: tuple[str, ...] = Field(default=("p226", "p287"), min_length=1)
    """Speakers of the training set to validate on."""


class Wsj0ChimeConfig(_Speech, _SoundFiles):
    """WSJ0-CHiME3 (Richter et al. 2023): si_tr_s, si_dt_05, si_et_05 of WSJ0 in CHiME3's noise, mixed when prepared."""

    name: Literal["wsj0_chime3"] = "wsj0_chime3"
    wsj0: AbsolutePath
    """Folder of WSJ0 as wav or flac files; it holds si_tr_s, si_dt_05, si_et_05 at any depth."""
    chime3: AbsolutePath
    """Folder with CHiME3's backgrounds, of which channel 1 (*.CH1.wav) is used."""
    snr: Range = (0.0, 20.0)
    """SNR in dB, drawn uniformly (StoRM: [-6, 14])."""

    @model_validator(mode="after")
    def _snr_is_a_range(self) -> Wsj0ChimeConfig:
        _ordered("snr", self.snr)
        return self


class Wsj0ReverbConfig(_Speech, _SoundFiles):
    """WSJ0-REVERB (Richter et al. 2023): each utterance in a simulated room of its own; needs pyroomacoustics."""

    name: Literal["wsj0_reverb"] = "wsj0_reverb"
    wsj0: AbsolutePath
    """Folder of WSJ0 as wav or flac files; it holds si_tr_s, si_dt_05, si_et_05 at any depth."""
    t60: Range = (0.4, 1.0)
    """Reverberation time in s, drawn uniformly."""

    @model_validator(mode="after")
    def _t60_is_a_range(self) -> Wsj0ReverbConfig:
        _ordered("t60", self.t60)
        return self


class EarsWhamConfig(_Speech, _SoundFiles):
    """EARS-WHAM (Richter et al. 2024), 48 kHz, version 2: noisy NAME_12.3dB.wav belongs to clean NAME.wav."""

    name: Literal["ears_wham"] = "ears_wham"
    path: AbsolutePath
    """Holds {train,valid,test}/{clean,noisy}/**."""
    sample_rate: int = Field(default=48_000, ge=4_000, le=192_000)
    """Hz of all signals."""
    length: int = Field(default=97_920, ge=256)
    """Samples in a crop: 255 * 384."""


PairedSpeechConfig = PairsSpeechConfig | VoiceBankConfig | Wsj0ChimeConfig | Wsj0ReverbConfig | EarsWhamConfig
"""Sources of ready pairs."""

PreparedSpeechConfig = PairedSpeechConfig | MixSpeechConfig
"""Sources that are read into a cache."""

SpeechDataConfig = Annotated[
    MadeSpeechConfig
    | PairsSpeechConfig
    | MixSpeechConfig
    | VoiceBankConfig
    | Wsj0ChimeConfig
    | Wsj0ReverbConfig
    | EarsWhamConfig,
    Field(discriminator="name"),
]
"""A source of clean and noisy speech; the section `data` of a configuration."""
