from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from generative.config import config_folder, load_layers
from generative.errors import CheckpointError
from generative.methods.autoregressive import convert as autoregressive
from generative.methods.masked_diffusion import convert as masked_diffusion
from generative.nets.accounting import non_embedding_parameters, total_parameters
from generative.nets.smdm_checkpoints import published_name, published_size
from generative.nets.smdm_layout import to_smdm
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig

GOLDEN = Path(__file__).parents[2] / "golden" / "masked_diffusion_lm"
SIZES = json.loads((GOLDEN / "param_counts.json").read_text())
TINY = TransformerConfig(layers=2, heads=4, width=64, ff_width=128, vocab_size=64, max_length=64)


def test_there_is_a_configuration_for_each_published_size_and_no_other():
    names = {f"{key.removeprefix('Diff_LLaMA_').removesuffix('M')}m" for key in SIZES}
    assert {path.stem for path in (config_folder() / "sizes").glob("*.yaml")} == names
    assert len(names) == 30


@pytest.mark.parametrize("key", SIZES)
def test_published_sizes_have_their_parameter_counts(key):
    expected = SIZES[key]
    network = load_layers(f"sizes/{key.removeprefix('Diff_LLaMA_').lower()}").values["method"]["network"]
    config = TransformerConfig(**network, vocab_size=32000)
    assert config.head_width == expected["head_size"]
    assert non_embedding_parameters(config) == expected["non_embedding"]
    assert total_parameters(config, mask_row=True) == expected["total_mdm"]
    assert total_parameters(config, mask_row=False) == expected["total_arm"]


@pytest.mark.parametrize("size", ["19M", "1028M"])
def test_the_network_itself_has_the_published_number_of_parameters(size):
    with torch.device("meta"):
        net = Transformer(published_size(f"mdm-{size}-1e18", "mdm"), causal=False, mask_row=True)
    assert sum(p.numel() for p in net.parameters()) == SIZES[f"Diff_LLaMA_{size}"]["total_mdm"]


def test_sizes_are_read_from_published_names():
    config = published_size("mdm-1028M-3300e18-rsl-0.01-bs-1024.safetensors", "mdm")
    assert (config.layers, config.heads, config.width, config.ff_width) == (20, 14, 1792, 7168)
    assert config.padded_vocab == 32000
    assert published_size("ar-19M-10e18.safetensors", "ar").layers == 8


@pytest.mark.parametrize("name", ["mdm-170M-6e18.safetensors", "model.safetensors", "ar-171M-6e18.safetensors"])
def test_names_of_other_families_or_sizes_are_refused(name):
    with pytest.raises(CheckpointError, match=name.split(".")[0]):
        published_size(name, "ar")


def test_layouts_there_and_back():
    path = GOLDEN / "tiny_mdm.safetensors"
    config, state = masked_diffusion.import_checkpoint(path, TINY)
    original, back = load_file(path), to_smdm(state, config)
    assert original.keys() == back.keys()
    assert all(torch.equal(original[name], back[name]) for name in original)


@pytest.mark.parametrize("name", ["mdm-170M-100e18.safetensors", "ar-1028M-100e18.safetensors"])
def test_files_that_we_write_have_names_that_tell_their_size(name):
    family = name.split("-")[0]
    sizes = published_size(name, family)
    ours = published_name(sizes, family, 12)
    assert ours == "-".join(name.split("-")[:2]) + "-step_000012.safetensors"
    assert published_size(ours, family) == sizes


def test_autoregressive_weights_load_strictly():
    config, state = autoregressive.import_checkpoint(GOLDEN / "tiny_arm.safetensors", TINY)
    Transformer(config, causal=True, mask_row=False).load_state_dict(state)


def test_checkpoints_of_another_kind_or_size_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="embedding"):
        autoregressive.import_checkpoint(GOLDEN / "tiny_mdm.safetensors", TINY)
    wider = TINY.model_copy(update={"ff_width": 256})
    with pytest.raises(CheckpointError, match="shape"):
        masked_diffusion.import_checkpoint(GOLDEN / "tiny_mdm.safetensors", wider)
    (tmp_path / "cut.safetensors").write_bytes((GOLDEN / "tiny_mdm.safetensors").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not readable"):
        masked_diffusion.import_checkpoint(tmp_path / "cut.safetensors", TINY)
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="missing"):
        masked_diffusion.import_checkpoint(tmp_path / "other.safetensors", TINY)
