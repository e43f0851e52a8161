"""Tiny text-to-image pipelines with random weights, in the layout of diffusers. Nothing is fetched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

GOLDEN = Path(__file__).parents[1] / "golden" / "rece" / "nudity_single"
# words of the tiny T5
VOCABULARY = "nudity church golf tree art dog photo of a an oak person dressed van gogh painting two words garden"
WORDS = VOCABULARY.split()


def golden_folder(folder: Path) -> Path:
    """The golden model as a pipeline's folder: it needs transformers, and no diffusers."""
    shutil.copytree(GOLDEN, folder, ignore=shutil.ignore_patterns("*.json", "f32*", "f64*"))
    for path in GOLDEN.glob("*/*.json"):
        shutil.copy(path, folder / path.parent.name)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(GOLDEN / "tokenizer")


def clip_text(width: int, projected: bool = False, seed: int = 0) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(clip_tokenizer()),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=width,
        eos_token_id=clip_tokenizer().eos_token_id,
        bos_token_id=clip_tokenizer().bos_token_id,
    )
    torch.manual_seed(seed)
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def t5_tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    made = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def t5_text(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(3)
    config = T5Config(vocab_size=len(WORDS) + 3, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    return T5EncoderModel(config).eval()


def vae(channels: int = 4) -> Any:
    from diffusers import AutoencoderKL

    torch.manual_seed(4)
    return AutoencoderKL(
        block_out_channels=(8, 16),
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        use_quant_conv=channels == 4,
        use_post_quant_conv=channels == 4,
        shift_factor=0.0,
    ).eval()


def unet(width: int, **more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(5)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=4,
        **more,
    ).eval()


def stable_diffusion() -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip_text(32),
        tokenizer=clip_tokenizer(),
        unet=unet(32),
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl() -> Any:
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline

    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip_text(24),
        text_encoder_2=clip_text(16, projected=True, seed=1),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet(40, projection_class_embeddings_input_dim=16 + 6 * 8, **added),
        scheduler=DDIMScheduler(),
    )


def stable_diffusion_3() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    torch.manual_seed(6)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=48,
        caption_projection_dim=16,
        pooled_projection_dim=40,
        out_channels=4,
        pos_embed_max_size=16,
    ).eval()
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(),
        text_encoder=clip_text(24, projected=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(16, projected=True, seed=1),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_text(48),
        tokenizer_3=t5_tokenizer(),
    )


def flux() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(7)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        pooled_projection_dim=24,
        axes_dims_rope=(4, 4, 8),
    ).eval()
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(),
        text_encoder=clip_text(24),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5_text(48),
        tokenizer_2=t5_tokenizer(),
        transformer=transformer,
    )


def pixart() -> Any:
    from diffusers import DDIMScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel

    torch.manual_seed(8)
    transformer = PixArtTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=48,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=24,
        norm_num_groups=1,
        use_additional_conditions=False,
    ).eval()
    return PixArtAlphaPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_text(48),
        vae=vae(),
        transformer=transformer,
        scheduler=DDIMScheduler(),
    )


MADE = {
    "stable_diffusion": stable_diffusion,
    "stable_diffusion_xl": stable_diffusion_xl,
    "stable_diffusion_3": stable_diffusion_3,
    "flux": flux,
    "pixart": pixart,
}


def embeddings(pipe: Any, text: str) -> dict[str, torch.Tensor]:
    """What the pipeline itself would give its denoiser for a text, [1, ...] each."""
    name = type(pipe).__name__
    with torch.no_grad():
        if name == "StableDiffusionPipeline":
            return {"text": pipe.encode_prompt(text, "cpu", 1, False)[0]}
        if name == "StableDiffusionXLPipeline":
            found = pipe.encode_prompt(text, device="cpu", do_classifier_free_guidance=False)
            return {"text": found[0], "pooled": found[2]}
        if name == "StableDiffusion3Pipeline":
            found = pipe.encode_prompt(text, None, None, device="cpu", do_classifier_free_guidance=False)
            return {"text": found[0], "pooled": found[2]}
        if name == "FluxPipeline":
            found = pipe.encode_prompt(text, None, device="cpu")
            return {"text": found[0], "pooled": found[1]}
        return {"text": pipe.encode_prompt(text, do_classifier_free_guidance=False, device="cpu")[0]}


def image(pipe: Any, text: str, seed: int = 0) -> torch.Tensor:
    """A small image of a text, [H, W, 3]."""
    pipe.set_progress_bar_config(disable=True)
    size = 8 * pipe.vae_scale_factor if "Pipeline" in type(pipe).__name__ else 16
    more: dict[str, Any] = (
        {"use_resolution_binning": False, "clean_caption": False} if "PixArt" in type(pipe).__name__ else {}
    )
    found = pipe(
        text,
        num_inference_steps=2,
        height=size,
        width=size,
        output_type="np",
        generator=torch.Generator().manual_seed(seed),
        **more,
    )
    return torch.from_numpy(found.images[0])
