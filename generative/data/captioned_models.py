"""The text encoder and the autoencoder of a published text-to-image model, through transformers and diffusers.

Shapes: texts [B, L, D], latents [B, C, R, R], pixels [B, 3, F R, F R] in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from generative.data.packages import needed
from generative.errors import CheckpointError

PIPELINES = ("StableDiffusionPipeline",)
"""Classes of pipelines whose parts are known here: one text encoder (CLIP), latents, a U-Net."""

T = TypeVar("T")


@dataclass(frozen=True)
class Published:
    """A pipeline of diffusers: a folder, or a repository on the hub. Weights are read from safetensors only.

    Args:
        source: path or name.
        revision: of a repository: branch, tag or commit.
    """

    source: str
    revision: str | None = None

    def check(self) -> None:
        """Refuse pipelines of other classes.

        Raises:
            CheckpointError: another class, or no pipeline.
        """
        library = _diffusers()
        index = self.read(lambda: library.DiffusionPipeline.load_config(self.source, revision=self.revision))
        kind = index.get("_class_name")
        if kind not in PIPELINES:
            raise CheckpointError(
                f"{self.source}: a pipeline of the class {kind}",
                f"{' or '.join(PIPELINES)} (Stable Diffusion 1.x or 2.x)",
                "take another model: those with several text encoders or transformers are not known here",
            )

    def part(self, kind: Any, name: str, **more: Any) -> Any:
        """A component, by the `from_pretrained` or `load_config` of its class. Raises CheckpointError."""
        where = {"subfolder": name} | ({} if self.revision is None else {"revision": self.revision})
        return self.read(lambda: kind(self.source, **where, **more))

    def read(self, attempt: Callable[[], T]) -> T:
        """What an attempt gives, or why there is nothing. Raises CheckpointError."""
        try:
            return attempt()
        except (OSError, ValueError) as error:
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise CheckpointError(
                f"no model could be read from {self.source!r}: {first[:200]}",
                "a folder or repository as diffusers writes it (model_index.json, unet, vae, text_encoder, ...), with "
                "weights in safetensors",
                "correct its name or revision; save weights that are pickled again with safetensors",
            ) from error


def _diffusers() -> Any:
    return needed(
        "diffusers", package="diffusers", extra="hub", by="a text-to-image model", instead="models of images alone"
    )


class TextEncoder:
    """CLIP's text encoder and tokenizer, as the pipeline itself uses them: the last hidden states of all tokens."""

    def __init__(self, model: Published, device: torch.device) -> None:
        library = needed(
            "transformers", package="transformers", extra="hub", by="a text encoder", instead="data without captions"
        )
        self.device = device
        self.tokenizer = model.part(library.CLIPTokenizer.from_pretrained, "tokenizer")
        more = {"use_safetensors": True, "dtype": torch.float32}
        self.network = model.part(library.CLIPTextModel.from_pretrained, "text_encoder", **more).to(device).eval()
        self.tokens = min(self.tokenizer.model_max_length, self.network.config.max_position_embeddings)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """float32[B, L, D]; longer texts are cut off."""
        told = {"padding": "max_length", "max_length": self.tokens, "truncation": True, "return_tensors": "pt"}
        ids = self.tokenizer(list(texts), **told).input_ids
        found: Tensor = self.network(ids.to(self.device))[0]
        return found.float()


class Autoencoder:
    """The pipeline's AutoencoderKL, with latents of about unit variance."""

    def __init__(self, model: Published, device: torch.device) -> None:
        kind, self.device = _diffusers().AutoencoderKL, device
        more = {"use_safetensors": True, "torch_dtype": torch.float32}
        self.network = model.part(kind.from_pretrained, "vae", **more).to(device).eval()
        settings = self.network.config
        self.channels, self.scale = int(settings.latent_channels), float(settings.scaling_factor)
        self.factor = _factor(settings)
        """F: pixels to a side of a latent."""

    @torch.no_grad()
    def encode(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """Latents drawn from the encoder's distribution with the noise [B, C, R, R]: float32."""
        drawn = self.network.encode(pixels.to(self.device)).latent_dist
        found: Tensor = self.scale * (drawn.mean + drawn.std * noise.to(self.device))
        return found

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pixels."""
        found: Tensor = self.network.decode(latents.to(self.device).float() / self.scale).sample
        return found.clamp(-1, 1)


def _factor(settings: Any) -> int:
    found: int = 2 ** (len(settings["block_out_channels"]) - 1)
    return found


def side_factor(model: Published) -> int:
    """Pixels to a side of a latent, from the autoencoder's settings alone. Raises CheckpointError."""
    return _factor(model.part(_diffusers().AutoencoderKL.load_config, "vae"))


def here() -> torch.device:
    """Where these networks compute."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@lru_cache(maxsize=1)
def autoencoder(model: Published) -> Autoencoder:
    """Opened once in a process."""
    return Autoencoder(model, here())


@lru_cache(maxsize=4)
def embedded(model: Published, texts: tuple[str, ...]) -> Tensor:
    """Embeddings of some texts as they are stored, float16[B, L, D] on the CPU; the encoder does not stay in memory."""
    return TextEncoder(model, here())(texts).half().cpu()
