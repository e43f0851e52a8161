"""Models as attacks see them: gradients through the denoiser, images of embeddings, both sets of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from evaluation.erasure.attacking import Victim
from evaluation.erasure.probes import Predict
from generative.errors import CheckpointError
from generative.hub.pixel_pipeline import PixelPipeline
from generative.hub.text_to_image import TextToImage
from generative.methods.rece.closed_form import derive, gram
from generative.methods.rece.config import EraseConfig
from generative.methods.rece.encoders import Encoder
from generative.methods.rece.erase import SharedTransform
from generative.methods.rece.families import chosen
from generative.methods.rece.formats import Edits
from generative.methods.rece.live import replace_weights
from launch.erase_pipelines import as_published, open_pipe

KINDS = ("epsilon", "v_prediction")


def victim_of(model: TextToImage, weights: Mapping[str, Tensor], edited: Mapping[str, Tensor]) -> Victim:
    """A model under attack, with its edited weights in use.

    Args:
        model: a U-Net with one CLIP text encoder (SD 1.x, 2.x, ours).
        weights: of the readers, original.
        edited: the same after the erasure.

    Raises:
        CheckpointError: another kind of model.
    """
    check_kind(model)
    pipe = open_pipe(model)
    denoiser = pipe.unet.requires_grad_(False)
    kind = str(pipe.scheduler.config.get("prediction_type", "epsilon"))
    if kind not in KINDS:
        raise _other(f"{model.name} predicts {kind}")
    signal = pipe.scheduler.alphas_cumprod.float()

    def use(changed: bool) -> None:
        replace_weights(denoiser, edited if changed else weights)

    use(True)
    predict = noise_predictor(denoiser, signal, kind)
    if isinstance(pipe, PixelPipeline):
        pipe.encoder.model.requires_grad_(False)
        return Victim(predict, signal, pipe.encoder, pipe.image_of, lambda image: image, use)
    more, text = as_published(pipe, model), pipe.text_encoder.requires_grad_(False)
    length = min(int(pipe.tokenizer.model_max_length), int(text.config.max_position_embeddings))
    encoder = Encoder(pipe.tokenizer, text, length)
    empty = encoder([""]).last.float()

    def image(states: Tensor, seed: int, guidance: float) -> Tensor:
        place = {"device": text.device, "dtype": text.dtype}
        found = pipe(
            prompt_embeds=states[None].to(**place),
            negative_prompt_embeds=empty.to(**place),
            generator=torch.Generator().manual_seed(seed),
            guidance_scale=guidance,
            output_type="np",
            **more,
        ).images[0]
        return torch.from_numpy(found).permute(2, 0, 1) * 2 - 1

    def clean(image: Tensor) -> Tensor:
        """The VAE's mean, scaled as the denoiser reads it."""
        told: Tensor = pipe.vae.encode(image[None].to(pipe.vae.device, pipe.vae.dtype)).latent_dist.mean[0]
        return told * float(pipe.vae.config.scaling_factor)

    return Victim(predict, signal, encoder, image, clean, use)


def check_kind(model: TextToImage) -> None:
    """Raises CheckpointError: a model that no attack here is made for."""
    if [stream.name for stream in model.streams()] != ["text"] or not model.kind.startswith("UNet"):
        raise _other(f"{model.name} is a {model.pipeline or model.kind}")


def noise_predictor(denoiser: Any, signal: Tensor, kind: str = "epsilon") -> Predict:
    """eps(x_t, t, states) of a UNet; v = sqrt(a) eps - sqrt(1 - a) x_0 gives eps = sqrt(a) v + sqrt(1 - a) x_t."""

    def predict(x: Tensor, time: Tensor, states: Tensor) -> Tensor:
        found: Tensor = denoiser(x, time, encoder_hidden_states=states.to(x)).sample
        if kind == "epsilon":
            return found
        kept = signal.to(x)[time.to(x.device)].view(-1, *[1] * (x.ndim - 1))
        return kept.sqrt() * found + (1 - kept).sqrt() * x

    return predict


def deriver(model: TextToImage, edits: Edits) -> Callable[[Tensor], Tensor]:
    """c' of states [L, d], by RECE's derivation against all edits, with the last one's lam.

    Raises:
        CheckpointError: the weights cannot be read.
    """
    stream = next(one for one in model.streams() if one.name == "text")
    changed = chosen(stream, edits.extra.get("include"), edits.extra.get("exclude")).readers
    sums = [
        gram((model.read([name])[name][:, stream.columns] for name in names), stream.width)
        for names in (changed, [name for name in stream.readers if name not in changed])
    ]
    fixed = sums[1] if len(changed) < len(stream.readers) else None
    state = SharedTransform.of(sums[0], edits.total()["text"], fixed)
    config = EraseConfig.model_validate(edits.erased[-1].about.get("config") or {})
    lam = config.lam * (state.mean_diagonal() if config.scale_free else 1.0)
    current, mixed = state.normal()
    return lambda rows: derive(rows.double(), current, mixed, lam).float()


def _other(found: str) -> CheckpointError:
    return CheckpointError(
        found,
        "a U-Net that predicts noise or v and reads one CLIP text encoder (SD 1.x, 2.x)",
        "measure this model without --attack",
    )
