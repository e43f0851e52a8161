"""Sections that settings of speech sources are made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from generative.config import Config
from generative.config_messages import combination
from generative.data.config import AbsolutePath

Range = tuple[float, float]
Proportion = Annotated[float, Field(ge=0)]


class SpeechSection(Config):
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


def check_ordered(name: str, bounds: Range) -> None:
    """For validators: refuse a range whose ends are the wrong way round."""
    if bounds[0] > bounds[1]:
        raise combination(f"{name}={list(bounds)}", "[low, high]", f"set data.{name}=[{bounds[1]},{bounds[0]}]")


class SoundFiles(Config):
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
    """Numbers in the cache (int16 rounds and clips at full scale); null: int16 where nothing is lost, else float32."""
    cache: AbsolutePath | None = None
    """Folder of prepared sound (null: $XDG_CACHE_HOME/generative, or ~/.cache/generative)."""


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
        check_ordered("rooms.t60", self.t60)
        if self.t60[0] < 0.1:
            raise combination(f"rooms.t60={list(self.t60)}", "0.1 s or more", "set data.rooms.t60=[0.4,1.0]")
        return self
