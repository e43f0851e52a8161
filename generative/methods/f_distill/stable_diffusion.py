"""Stable Diffusion 1.5 and 2.1 as teachers, through diffusers: latents, precomputed text embeddings, eps or v.

A discrete diffusion x_t = alpha_i x + sigma_i eps is, divided by alpha_i, EDM's x + s_i eps, s_i = sigma_i / alpha_i;
f-divergences and the direction of the loss are the same for both. So the network is told s, finds the step i, and
answers in x0 form: x - s eps, or alpha_i x_t - sigma_i v. One step from s_999 = 14.6 amplifies errors of eps 14.6
times: this arithmetic is in float64, whatever the U-Net computes in.

Shapes: latents [B, C, R, R], text embeddings [B, L, D], N steps of the schedule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from generative.config import Config
from generative.errors import CheckpointError, ConfigError, ResourceError
from generative.methods.f_distill.denoiser import DenoiserParts, FeatureMap
from generative.nets.precision import wide

UNKNOWN = (
    "class_embed_type",
    "addition_embed_type",
    "encoder_hid_dim_type",
    "num_class_embeds",
    "time_cond_proj_dim",
    "center_input_sample",
)
"""Settings of diffusers' U-Net that neither Stable Diffusion 1.5 nor 2.1 has, and that `LatentDenoiser` knows not."""


class StableDiffusionConfig(Config):
    """A published text-to-image model in diffusers' layout; weights are read from safetensors only."""

    source: str
    """Local folder, or repository on the hub, with `unet` and `scheduler`."""
    revision: str | None = None
    """Of a repository: branch, tag or commit."""
    variant: str | None = None
    """Of the weights' files, such as fp16."""
    side: PositiveInt | None = None
    """Of the latents, an eighth of the image's; null: that which the model was trained on."""


@dataclass(frozen=True)
class Schedule:
    """The discrete diffusion that a network was trained on.

    Args:
        alphas_cumprod: float64[N], alpha_i^2, falling, above 0.
        velocity: the network predicts v = alpha eps - sigma x, not eps.
    """

    alphas_cumprod: Tensor
    velocity: bool

    @property
    def levels(self) -> Tensor:
        """s_i, float64[N], ascending."""
        return ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt()

    def steps(self, sigma: Tensor) -> Tensor:
        """The step whose level is nearest in ratio, int64[B]."""
        levels = self.levels.to(sigma.device)
        return torch.bucketize(sigma.double().contiguous(), (levels[:-1] * levels[1:]).sqrt())


class LatentDenoiser(nn.Module):
    """D(x, s, text) around diffusers' UNet2DConditionModel; see `denoiser.Call`. Features: of each down block, and mid.

    Args:
        unet: as the configuration says.
        schedule: of its training.

    Raises:
        ConfigError: a U-Net with more inputs than latents, step and text.
    """

    def __init__(self, unet: nn.Module, schedule: Schedule) -> None:
        super().__init__()
        settings: Any = unet.config
        further = [key for key in UNKNOWN if settings.get(key)]
        if further:
            raise ConfigError(
                f"a U-Net with {further[0]}={settings.get(further[0])}",
                "one of the form of Stable Diffusion 1.5 or 2.1, which is told its step and a text",
                "take another teacher",
            )
        self.unet: Any = unet
        self.schedule = schedule

    @property
    def activation_checkpointing(self) -> bool:
        """Whether the backward pass computes activations again."""
        return bool(self.unet.is_gradient_checkpointing)

    @activation_checkpointing.setter
    def activation_checkpointing(self, on: bool) -> None:
        (self.unet.enable_gradient_checkpointing if on else self.unet.disable_gradient_checkpointing)()

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        text: Tensor,
        *,
        features: Sequence[int] | None = None,
        encoder_only: bool = False,
        decoder_gradient: bool = True,
    ) -> Any:
        """As `denoiser.Call`.

        Args:
            x: [B, C, R, R], x + s eps.
            sigma: [B], s, levels of the schedule.
            text: [B, L, D], embeddings of the prompts.
            features: which of the maps are wanted, 0 the first down block's; the last is that of the middle block.
            encoder_only: give these alone.
            decoder_gradient: False: the estimate is a constant.
        """
        x, dtype = wide(x), self.unet.dtype
        index = self.schedule.steps(sigma)
        squares = self.schedule.alphas_cumprod.to(x.device)[index].view(-1, 1, 1, 1)
        alpha, noise = squares.sqrt(), (1 - squares).sqrt()
        inner, text = (alpha * x.double()).to(dtype), text.to(dtype)
        embedding = self.unet.time_embedding(self.unet.time_proj(index).to(dtype))
        skips, maps = self._encode(inner, embedding, text)
        found = [maps[level] for level in features or ()]
        if encoder_only:
            return found
        with torch.set_grad_enabled(torch.is_grad_enabled() and decoder_gradient):
            raw = self._decode(maps[-1], skips, embedding, text).double()
            if self.schedule.velocity:
                estimate = alpha * (alpha * x.double()) - noise * raw
            else:
                estimate = x.double() - noise / alpha * raw
            estimate = estimate.to(x.dtype)
        return estimate if features is None else (estimate, found)

    def _encode(self, x: Tensor, embedding: Tensor, text: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Skip connections, and what the down blocks and the middle block give."""
        x = self.unet.conv_in(x)
        skips, maps = [x], []
        for block in self.unet.down_blocks:
            x, further = block(hidden_states=x, temb=embedding, **_told(block, text))
            skips += further
            maps.append(x)
        maps.append(self.unet.mid_block(x, embedding, **_told(self.unet.mid_block, text)))
        return skips, maps

    def _decode(self, x: Tensor, skips: list[Tensor], embedding: Tensor, text: Tensor) -> Tensor:
        for block in self.unet.up_blocks:
            count = len(block.resnets)
            skips, own = skips[:-count], tuple(skips[-count:])
            x = block(hidden_states=x, temb=embedding, res_hidden_states_tuple=own, **_told(block, text))
        if self.unet.conv_norm_out is not None:
            x = self.unet.conv_act(self.unet.conv_norm_out(x))
        read: Tensor = self.unet.conv_out(x)
        return read


def _told(block: nn.Module, text: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}


def stable_diffusion_parts(config: StableDiffusionConfig, empty: Tensor) -> DenoiserParts:
    """What the method needs of a published model: `FDistill(settings, stable_diffusion_parts(...))`.

    Batches hold sample float[B, C, R, R], latents times the model's scaling factor, and text float[B, L, D]. Settings:
    `student_sigma` the last of the levels that this returns (14.61 for 1.5), `time.first` and `time.last` as indices
    of its steps, `fake_weight: eps` for DMD2's loss of the fake score.

    Args:
        config: which model.
        empty: float[L, D], embedding of the empty prompt, for guidance.

    Raises:
        ResourceError: diffusers is not installed.
        CheckpointError: no such model, or no safetensors in it.
        ConfigError: a model of another kind.
    """
    settings, schedule = _read(config)
    build = partial(_build, settings, schedule)
    side = config.side or settings["sample_size"]
    shape = (int(settings["in_channels"]), side, side)
    with torch.device("meta"):
        net, x = build(), torch.empty(1, *shape)
        maps = range(len(settings["block_out_channels"]) + 1)
        inputs = (x, torch.ones(1), torch.empty(1, *empty.shape))
        with FlopCounterMode(display=False) as encoder, torch.no_grad():
            found = net(*inputs, features=maps, encoder_only=True)
        with FlopCounterMode(display=False) as whole, torch.no_grad():
            net(*inputs)
    return DenoiserParts(
        build,
        shape,
        0,
        [FeatureMap(each.shape[1], each.shape[2]) for each in found],
        whole.get_total_flops() // 2,
        encoder.get_total_flops() // 2,
        empty=empty,
        noise_levels=tuple(schedule.levels.tolist()),
        pretrained=partial(_load, config, settings, schedule),
    )


def _read(config: StableDiffusionConfig) -> tuple[dict[str, Any], Schedule]:
    """Settings of the U-Net, and the schedule."""
    try:
        from diffusers import DDIMScheduler, UNet2DConditionModel
    except ImportError as error:
        raise ResourceError(
            "Stable Diffusion as a teacher needs the package diffusers, which is not installed",
            "an installation with diffusers",
            "pip install diffusers",
        ) from error
    where = {"revision": config.revision}
    try:
        settings = UNet2DConditionModel.load_config(config.source, subfolder="unet", **where)
        scheduler = DDIMScheduler.from_pretrained(config.source, subfolder="scheduler", **where)
    except (OSError, ValueError) as error:
        raise _missing(config, error) from error
    told = scheduler.config.prediction_type
    if told not in ("epsilon", "v_prediction"):
        raise ConfigError(f"{config.source} predicts {told!r}", "epsilon or v_prediction", "take another teacher")
    squares = scheduler.alphas_cumprod.double()
    if not float(squares[-1]) > 0:
        raise ConfigError(
            f"{config.source} ends at pure noise (zero terminal signal-to-noise ratio), from which there is no x0",
            "a schedule with some signal at its last step",
            "take a model trained without rescale_betas_zero_snr",
        )
    return dict(settings), Schedule(squares, told == "v_prediction")


def _build(settings: Mapping[str, Any], schedule: Schedule) -> LatentDenoiser:
    """A network of random weights."""
    from diffusers import UNet2DConditionModel

    return LatentDenoiser(UNet2DConditionModel.from_config(dict(settings)), schedule)


def _load(config: StableDiffusionConfig, settings: Mapping[str, Any], schedule: Schedule) -> LatentDenoiser:
    """The published network; where only names and shapes are asked for, on the meta device, one without weights."""
    from diffusers import UNet2DConditionModel

    if torch.get_default_device().type == "meta":
        return _build(settings, schedule)
    try:
        unet = UNet2DConditionModel.from_pretrained(
            config.source,
            subfolder="unet",
            revision=config.revision,
            variant=config.variant,
            use_safetensors=True,
            torch_dtype=torch.float32,
        )
    except (OSError, ValueError) as error:
        raise _missing(config, error) from error
    return LatentDenoiser(unet, schedule)


def _missing(config: StableDiffusionConfig, error: Exception) -> CheckpointError:
    first = str(error).strip().split("\n")[0][:200]
    return CheckpointError(
        f"no model could be read from {config.source!r}: {first}",
        "a folder or repository with unet (config.json, safetensors) and scheduler, as diffusers writes it",
        "correct source, revision or variant; save weights that are pickled again with safetensors",
    )
