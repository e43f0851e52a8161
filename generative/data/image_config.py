"""Settings of an image source (and of points in the plane). The key that picks the variant is `name`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from generative.config import Config
from generative.config_messages import combination
from generative.data.captioned_config import CaptionedConfig
from generative.data.config import AbsolutePath, HubName


class DigitsConfig(Config):
    """scikit-learn's 1,797 gray digits of 8 x 8 pixels, as x/8 - 1; 1,400 to train on, 397 held out."""

    name: Literal["digits"] = "digits"
    max_samples: int | None = Field(default=None, ge=1)
    """Use at most so many of the 1,400 training digits, the first of a fixed shuffle."""


class StackedDigitsConfig(Config):
    """Three independently drawn digits as the channels of an 8 x 8 image: 1,000 modes (label 100 a + 10 b + c)."""

    name: Literal["stacked_digits"] = "stacked_digits"
    size: int = Field(default=128_000, ge=1)
    """Training images, made of the 1,400 training digits."""
    validation_size: int = Field(default=26_000, ge=1)
    """Held-out images, made of the 397 held-out digits."""


class PointsConfig(Config):
    """Mixtures of Gaussians in the plane, the toy data of VEEGAN and PacGAN; the label is the mode."""

    name: Literal["points"] = "points"
    kind: Literal["ring", "grid"] = "ring"
    """ring: 8 modes at radius 1, std 0.01. grid: the 25 modes {-4, -2, 0, 2, 4}^2, std 0.05."""
    size: int = Field(default=100_000, ge=1)
    """Training points."""
    validation_size: int = Field(default=2_500, ge=1)
    """Held-out points, drawn from the same distribution."""


class _FilesOfImages(Config):
    """What sources have in common whose images are decoded once into a cache."""

    size: int | None = Field(default=None, ge=1)
    """Side in pixels that all images must have (or get: `resize`); null: all must be equal, square or not."""
    resize: bool = False
    """Cut the largest square out of the middle of each image and scale it to `size`."""
    filter: Literal["lanczos", "bicubic"] = "lanczos"
    """How `resize` interpolates; both average over all pixels when they make an image smaller."""
    channels: Literal[1, 3] | None = None
    """Convert to gray (1: ITU-R 601 luma) or to colour (3: gray three times); null: as they are, all must be equal."""
    background: Literal["white", "black"] | None = None
    """What images with transparency are laid over; null: they are refused."""
    validation_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Part of the images that is held out, picked by a fixed shuffle; 0: nothing is held out."""
    max_samples: int | None = Field(default=None, ge=1)
    """Use at most so many images, picked by a fixed shuffle (before some are held out)."""
    mirror: bool = False
    """Also train on every image flipped left to right: 2 N samples, the second half mirrored."""
    cache: AbsolutePath | None = None
    """Folder of prepared images (null: $XDG_CACHE_HOME/generative, or ~/.cache/generative)."""

    @model_validator(mode="after")
    def _resize_needs_a_size(self) -> _FilesOfImages:
        if self.resize and self.size is None:
            raise combination("resize=true without a size", "the side to scale to", "set data.size=64 (for example)")
        return self


class FolderImageConfig(_FilesOfImages):
    """Image files (png, jpg, jpeg, webp, bmp)."""

    name: Literal["folder"] = "folder"
    path: AbsolutePath
    """The folder; it is searched for `pattern`."""
    pattern: str = "**/*"
    """Which of its image files, in glob syntax."""
    classes: bool = False
    """The first folder below `path` that a file lies in is its class; classes are numbered by name."""
    validation_path: AbsolutePath | None = None
    """A folder to hold out instead of a fraction."""


class HubImageConfig(_FilesOfImages):
    """An image data set in the Hugging Face layout; those that need code are refused."""

    name: Literal["hub"] = "hub"
    id: HubName
    """Name on the hub, or a local folder in the same layout."""
    config: str | None = None
    """Configuration (subset) of the data set."""
    split: str = "train"
    """Split to train on."""
    extra_splits: tuple[str, ...] = ()
    """Further splits to train on (the published MEE GAN trains on the training and the test images of CIFAR-10)."""
    column: str | None = None
    """Column of the images; null: the only one."""
    label_column: str | None = None
    """Column of the class, numbers or names; null: the only column of classes, if there is one."""
    revision: str | None = None
    """Commit, tag or branch; resolved to a commit, which a run without network must name itself."""
    validation_split: str | None = None
    """Split to hold out instead of a fraction."""

    @model_validator(mode="after")
    def _held_out_is_not_trained_on(self) -> HubImageConfig:
        trained = (self.split, *self.extra_splits)
        if self.validation_split in trained or len(set(trained)) < len(trained):
            raise combination(
                f"a split is used twice (training {', '.join(trained)}; validation {self.validation_split})",
                "different splits",
                "correct data.split, data.extra_splits or data.validation_split",
            )
        return self


DecodedImageConfig = FolderImageConfig | HubImageConfig
"""Sources that are decoded into a cache."""

ImageDataConfig = Annotated[
    DigitsConfig | StackedDigitsConfig | PointsConfig | FolderImageConfig | HubImageConfig | CaptionedConfig,
    Field(discriminator="name"),
]
"""An image source; the section `data` of a configuration."""
