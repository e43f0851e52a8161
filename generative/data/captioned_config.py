"""Settings of captions with images, as text-to-image models learn from them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from generative.config import Config
from generative.config_messages import combination
from generative.data.config import AbsolutePath, HubName

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Captions in a folder of images, as the hub's data sets of images have them."""


class CaptionedConfig(Config):
    """Captions with images (or alone), as embeddings and latents of a published text-to-image model, computed once."""

    name: Literal["captions"] = "captions"
    captions: AbsolutePath | None = None
    """File of captions: .csv, .tsv, .jsonl or .parquet with a column of captions and one of images; .txt: a caption a
    line, without images. null: the file metadata.csv, .jsonl or .parquet in `images`."""
    images: AbsolutePath | None = None
    """Folder that the column of images names files in; null: captions alone, which suffice without a discriminator."""
    caption_column: str = "text"
    """Column of the captions."""
    image_column: str = "file_name"
    """Column of the images' paths below `images`."""
    size: PositiveInt = 512
    """Side in pixels: the largest centred square of each image is scaled to it."""
    model: HubName | None = None
    """Pipeline of diffusers (folder, or name on the hub) whose autoencoder and text encoder are used; null: that of
    method.teacher."""
    revision: str | None = None
    """Of the model on the hub: branch, tag or commit."""
    validation_fraction: float = Field(default=0.01, ge=0, lt=1)
    """Part of the rows that is held out, picked by a fixed shuffle, and that samples are drawn for; 0: nothing is."""
    max_samples: PositiveInt | None = None
    """Use at most so many rows, picked by a fixed shuffle (before some are held out)."""
    batch_size: PositiveInt = 8
    """Images that are encoded together, and samples that are drawn and decoded together."""
    cache: AbsolutePath | None = None
    """Folder of prepared data (null: $XDG_CACHE_HOME/generative, or ~/.cache/generative)."""

    @model_validator(mode="after")
    def _something_is_given(self) -> CaptionedConfig:
        if self.captions is None and self.images is None:
            raise combination(
                "neither captions nor images",
                f"a file of captions, or a folder of images with {' or '.join(METADATA)}",
                "set data.captions, data.images or both",
            )
        if self.images is not None and self.captions is not None and self.captions.suffix == ".txt":
            raise combination(
                f"captions={self.captions.name} with images: a .txt file does not tell whose caption a line is",
                "a .csv, .tsv, .jsonl or .parquet file with a column of images",
                "give data.captions such a file, or leave out data.images",
            )
        return self
