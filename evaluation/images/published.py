"""Extractors with published weights: the Inception network of FID, and vision backbones of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from evaluation.images.extractors import Extracted, as_rgb, identity, missing_weights, tensor_hash
from evaluation.images.inception import FidInception
from generative.data.files import file_hash
from generative.errors import DataError
from generative.hub.legacy import read_state_dict
from generative.hub_names import HUB, repository

PUBLISHED = "6726825d"
"""Beginning of the sha256 of weights-inception-2015-12-05-6726825d.pth, which FIDs are computed with in PyTorch."""

KEY = "evaluate.extractor_weights"


class InceptionExtractor:
    """pool3 of TensorFlow's "inception-2015-12-05", the features of published FID, KID and IS.

    Images are rounded to 8 bits first, as if saved as PNG, and resized to 299 x 299 as TensorFlow 1 does.

    Args:
        weights: a file (.safetensors, or .pth read without unpickling code), or hub:OWNER/NAME/FILE.
        revision: branch, tag or commit on the hub.
        device: where the network runs.

    Raises:
        DataError: the weights are not there, or are not of this network.
    """

    def __init__(self, weights: str, revision: str | None = None, device: torch.device | str = "cpu") -> None:
        path = _file(weights, revision)
        with torch.device("meta"):
            net = FidInception()
        try:
            net.load_state_dict(read_state_dict(path), assign=True)
        except RuntimeError as error:
            raise DataError(
                f"{path}: not the weights of the Inception network of FID ({first_line(error)})",
                expected=f"the parameters of weights-inception-2015-12-05-{PUBLISHED}.pth, as .pth or .safetensors",
                remedy=f"correct {KEY}; torchvision's Inception and TorchScript files cannot stand in",
            ) from error
        self.net, self.device = net.eval().requires_grad_(False).to(device), device
        hashed = file_hash(path)
        name = "published weights" if hashed.startswith(PUBLISHED) else "weights"
        self.description = f"Inception 2015-12-05 pool3 ({name} {hashed[:8]}), 8-bit images"
        self.fingerprint = identity("inception", 1, tensor_hash(*net.state_dict().values()))

    def __call__(self, images: Tensor) -> Extracted:
        """Features [B, 2048] and probabilities [B, 1008]; gray images are repeated over three channels."""
        pixels = (as_rgb(images).to(self.device, torch.float32) * 127.5 + 128).clamp(0, 255).floor()
        with torch.no_grad():
            features, logits = self.net(pixels)
        return Extracted(features, logits.softmax(1))


class BackboneExtractor:
    """The pooled output of a vision model of transformers (DINOv2, CLIP, SigLIP, ViT, ResNet, ...).

    Images are resized to the model's side (bicubic, with antialiasing) and normalised as its preprocessor says.

    Args:
        model: a folder, or hub:OWNER/NAME.
        revision: branch, tag or commit on the hub; give a commit for figures that stay comparable.
        device: where the network runs.

    Raises:
        DataError: the model is not there, or transformers is not installed.
    """

    def __init__(self, model: str, revision: str | None = None, device: torch.device | str = "cpu") -> None:
        self.net, preprocessing = _load_backbone(model, revision)
        self.net.eval().requires_grad_(False).to(device)
        self.device, self.side = device, _side(preprocessing, self.net.config)
        # Without a preprocessor: the statistics of ImageNet, which most backbones were trained with.
        self.mean = torch.tensor(preprocessing.get("image_mean") or (0.485, 0.456, 0.406), device=device)
        self.std = torch.tensor(preprocessing.get("image_std") or (0.229, 0.224, 0.225), device=device)
        hashed = tensor_hash(*self.net.state_dict().values())
        at = "" if Path(model).is_dir() else f"@{str(revision or 'main')[:12]}"
        self.description = f"{Path(model).name}{at} pooled output (weights {hashed[:8]}), {self.side} px"
        self.fingerprint = identity("backbone", hashed, self.side, self.mean.tolist(), self.std.tolist())

    def __call__(self, images: Tensor) -> Extracted:
        """Features [B, D]; gray images are repeated over three channels."""
        x = as_rgb(images).to(self.device, torch.float32).add(1).div(2)
        x = functional.interpolate(x, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 1)
        x = (x - self.mean[:, None, None]) / self.std[:, None, None]
        with torch.no_grad():
            found = self._pooled(x)
        return Extracted(found.flatten(1).float())

    def _pooled(self, pixels: Tensor) -> Tensor:
        # Models of images and text have a tower for images; where no layer pools, the mean over patches does.
        forward = getattr(self.net, "get_image_features", self.net)
        output: Any = forward(pixel_values=pixels)
        if isinstance(output, Tensor):
            return output
        pooled: Tensor | None = getattr(output, "pooler_output", None)
        return output.last_hidden_state.mean(1) if pooled is None else pooled


def _load_backbone(model: str, revision: str | None) -> tuple[Any, Mapping[str, Any]]:
    """The network, and what its preprocessor says (empty where it has none)."""
    try:
        from transformers import AutoModel
        from transformers.image_processing_base import ImageProcessingMixin
    except ImportError as error:
        raise missing_weights(f"the backbone {model!r} needs the package transformers ({error})", KEY) from error
    # Never pickled weights, never the repository's code.
    options: dict[str, Any] = {} if Path(model).is_dir() else {"revision": revision or "main"}
    safe = {"trust_remote_code": False, "use_safetensors": True, "dtype": torch.float32}
    try:
        net: Any = AutoModel.from_pretrained(repository(model), **safe, **options)
    except Exception as error:  # the library raises many kinds; each means that there is no such model here
        raise missing_weights(f"backbone {model!r} cannot be loaded: {first_line(error)}", KEY) from error
    if not isinstance(net, nn.Module) or not (
        hasattr(net, "get_image_features") or net.main_input_name == "pixel_values"
    ):
        raise missing_weights(f"{model!r} is no model of images ({type(net).__name__})", KEY)
    try:
        preprocessing: Mapping[str, Any] = ImageProcessingMixin.get_image_processor_dict(repository(model), **options)[
            0
        ]
    except (OSError, ValueError):
        preprocessing = {}
    return net, preprocessing


def _side(preprocessing: Mapping[str, Any], config: Any) -> int:
    """Pixels that the model wants: what its preprocessor crops to, else resizes to, else its configuration's."""
    for key in ("crop_size", "size"):
        found = preprocessing.get(key)
        if isinstance(found, Mapping):
            found = found.get("height") or found.get("shortest_edge")
        if found:
            return int(found)
    vision = getattr(config, "vision_config", config)
    side = getattr(vision, "image_size", None) or 224
    return int(side if isinstance(side, int) else side[0])


def _file(weights: str, revision: str | None) -> Path:
    """The file itself, fetched from the hub where it lies there."""
    if not weights.startswith(HUB):
        if not Path(weights).is_file():
            raise missing_weights(f"no file {weights!r} with the weights of the extractor", KEY)
        return Path(weights)
    owner, _, rest = repository(weights).partition("/")
    name, _, file = rest.partition("/")
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(f"{owner}/{name}", file, revision=revision))
    except Exception as error:  # network, permissions, unknown names: many kinds, one meaning
        raise missing_weights(f"{weights}: {first_line(error)}", KEY) from error


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
