"""Settings of a source of clean and noisy speech. The key that picks the variant is `name`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from generative.config_messages import combination
from generative.data.config import AbsolutePath
from generative.data.speech_settings import NoiseKinds, Range, RoomsConfig, SoundFiles, SpeechSection, check_ordered


class MixingConfig(SpeechSection):
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
        check_ordered("snr", self.snr)
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


class PairsSpeechConfig(SpeechSection, SoundFiles):
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


class MixSpeechConfig(MixingConfig, SoundFiles):
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
        check_ordered("gap", self.gap)
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


class VoiceBankConfig(SpeechSection, SoundFiles):
    """VoiceBank-DEMAND (Valentini-Botinhao 2017): 28 speakers; p226 and p287 validate, the test set has two others."""

    name: Literal["voicebank_demand"] = "voicebank_demand"
    path: AbsolutePath
    """Holds {clean,noisy}_trainset_28spk_wav and {clean,noisy}_testset_wav, 48 kHz as published, or resampled."""
    resample: bool = True
    """From the published 48 kHz to `sample_rate`."""
    validation_speakers: tuple[str, ...] = Field(default=("p226", "p287"), min_length=1)
    """Speakers of the training set to validate on."""


class Wsj0ChimeConfig(SpeechSection, SoundFiles):
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
        check_ordered("snr", self.snr)
        return self


class Wsj0ReverbConfig(SpeechSection, SoundFiles):
    """WSJ0-REVERB (Richter et al. 2023): each utterance in a simulated room of its own; needs pyroomacoustics."""

    name: Literal["wsj0_reverb"] = "wsj0_reverb"
    wsj0: AbsolutePath
    """Folder of WSJ0 as wav or flac files; it holds si_tr_s, si_dt_05, si_et_05 at any depth."""
    t60: Range = (0.4, 1.0)
    """Reverberation time in s, drawn uniformly."""

    @model_validator(mode="after")
    def _t60_is_a_range(self) -> Wsj0ReverbConfig:
        check_ordered("t60", self.t60)
        return self


class EarsWhamConfig(SpeechSection, SoundFiles):
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
