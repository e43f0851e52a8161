"""Single files under the names that their publishers give: the same edit as from the folder of diffusers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("diffusers")
from generative.hub.erasing import Asked, erase_model
from generative.hub.open_text_to_image import open_model
from generative.methods.rece.config import PRESETS
from generative.methods.rece.request import Request
from tests.support.pipelines import MADE

UNET, POOLED = "model.diffusion_model.", "time_text_embed.text_embedder.linear_1."
NAMES = {
    "stable_diffusion_xl": {
        "down_blocks.1.attentions.0.": UNET + "input_blocks.4.1.",
        "mid_block.attentions.0.": UNET + "middle_block.1.",
        "up_blocks.0.attentions.0.": UNET + "output_blocks.0.1.",
        "up_blocks.0.attentions.1.": UNET + "output_blocks.1.1.",
        "add_embedding.linear_1.": UNET + "label_emb.0.0.",
    },
    "stable_diffusion_3": {
        "context_embedder.": UNET + "context_embedder.",
        POOLED: UNET + "y_embedder.mlp.0.",
        "transformer_blocks.0.attn.to_q.": UNET + "joint_blocks.0.x_block.attn.qkv.",
    },
    "flux": {
        "context_embedder.": "txt_in.",
        POOLED: "vector_in.in_layer.",
        "single_transformer_blocks.0.attn.to_q.": "single_blocks.0.linear1.",
    },
}
"""Of the readers of text, and of one layer more where the kind of model is known by it."""


@pytest.mark.parametrize("kind", list(NAMES))
def test_published_names(kind: str, tmp_path: Path) -> None:
    pipe = MADE[kind]()
    pipe.save_pretrained(tmp_path / "folder")
    net = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    state = {
        name.replace(ours, theirs): weight.contiguous()
        for name, weight in net.state_dict().items()
        for ours, theirs in NAMES[kind].items()
        if name.startswith(ours)
    }
    save_file(state | {"vae.other": torch.zeros(1)}, tmp_path / "file.safetensors")
    request = Request(["church"], ["art"], PRESETS["hard_object"].erase)
    asked = Asked(request, cache=tmp_path / "cache")
    whole = erase_model(open_model(str(tmp_path / "folder")), asked)
    alone = erase_model(open_model(str(tmp_path / "file.safetensors"), text=str(tmp_path / "folder")), asked)
    assert alone.model.kind == whole.model.kind
    assert [stream.name for stream in alone.streams] == ["text", "pooled"]
    assert alone.edited.keys() == whole.edited.keys()
    assert all(torch.equal(alone.edited[name], weight) for name, weight in whole.edited.items())
