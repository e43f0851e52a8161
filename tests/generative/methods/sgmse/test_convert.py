"""Released Lightning checkpoints in and out: weights, averages, settings; and what does not fit."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from generative.errors import CheckpointError
from generative.hub.legacy import read_checkpoint, write_state_dict
from generative.methods.sgmse.config import SgmseConfig
from generative.methods.sgmse.convert import Released, from_lightning, to_lightning
from generative.methods.sgmse.layout import to_released
from generative.methods.sgmse.network import build_network
from generative.nets.ncsnpp import Ncsnpp

GOLDEN = Path(__file__).parents[3] / "golden" / "sgmse"
V2 = {
    "network": {
        "name": "ncsnpp",
        "variant": "v2",
        "width": 8,
        "multipliers": (1, 2, 2),
        "res_blocks": 1,
        "attention_levels": (1, 2),
    },
    "spectrogram": {"n_fft": 62, "hop": 16, "window": "sqrthann", "exponent": 0.6, "factor": 0.2},
    "wrapping": {"loss_type": "data_prediction", "c_in": "edm", "c_out": "edm", "c_skip": "edm", "sigma_data": 0.2},
    "process": {"name": "sbve", "k": 2.5, "c": 0.3, "t_eps": 0.03},
    "ema": [0.9],
    "frames": 32,
    "sampling": {"steps": 12},
    "sample_rate": 8000,
    "normalize": "clean",
}
PLAIN = {
    "network": {
        "name": "ncsnpp",
        "variant": "48k",
        "width": 8,
        "multipliers": (1, 1),
        "attention_levels": (),
        "centered": False,
    },
    "sample_rate": 48000,
}


@pytest.fixture
def tiny():
    """What is in a released checkpoint."""
    return read_checkpoint(GOLDEN / "tiny_lightning.ckpt")


def network(config, state):
    net = Ncsnpp(config.network)
    net.load_state_dict(state)
    return net


def states(config, count=2):
    for seed in range(count):
        torch.manual_seed(seed)
        yield Ncsnpp(config.network).state_dict()


def same(found, wanted):
    assert found.keys() == wanted.keys()
    torch.testing.assert_close(dict(found), dict(wanted), rtol=0, atol=0)


def test_scores_of_raw_and_averaged_weights(tiny):
    found = from_lightning(tiny)
    golden = np.load(GOLDEN / "checkpoint_io.npz")
    arguments = [torch.from_numpy(golden[name]) for name in ("x_t", "y", "t")]
    for name, state in (("raw", found.trained), ("ema", found.averaged)):
        score = -network(found.config, state)(*arguments)
        wanted = torch.from_numpy(golden[f"score_{name}"])
        torch.testing.assert_close(score.detach(), wanted, rtol=0, atol=2e-4 * wanted.abs().max().item())


def test_settings_are_kept(tiny):
    config = from_lightning(tiny).config
    assert (config.network.variant, config.network.width, config.network.multipliers) == ("v1", 4, (1, 1))
    assert (config.spectrogram.n_fft, config.spectrogram.hop, config.frames, config.sample_rate) == (30, 8, 16, 16000)
    assert config.process.model_dump() == {
        "name": "ouve", "theta": 1.5, "sigma_min": 0.05, "sigma_max": 0.5, "t_eps": 0.03
    }  # fmt: skip
    assert (config.version, config.ema, config.sampling.steps) == ("v1", [0.999], 30)


def swapped(checkpoint):
    """As written in validation: averages in the network, the weights as trained kept beside them."""
    names = list(checkpoint["state_dict"])
    kept = list(checkpoint["state_dict"].values())
    checkpoint["state_dict"] = dict(zip(names, checkpoint["ema"]["shadow_params"], strict=True))
    checkpoint["ema"]["collected_params"] = kept


def left_over(checkpoint):
    """A validation was over long before, but what it had kept is still there."""
    checkpoint["ema"]["collected_params"] = [torch.zeros_like(t) for t in checkpoint["ema"]["shadow_params"]]


def without_the_fixed_one(checkpoint):
    """Averages of older versions leave out what takes no gradient: the third parameter."""
    del checkpoint["ema"]["shadow_params"][2]


def with_a_loss(checkpoint):
    checkpoint["state_dict"]["pesq_loss.filter"] = torch.ones(3)


@pytest.mark.parametrize("change", [swapped, left_over, without_the_fixed_one, with_a_loss])
def test_ways_of_writing_the_same(tiny, change):
    wanted = from_lightning(copy.deepcopy(tiny))
    change(tiny)
    found = from_lightning(tiny)
    same(found.trained, wanted.trained)
    fixed = {"time.frequencies": wanted.trained["time.frequencies"]} if change is without_the_fixed_one else {}
    same(found.averaged, wanted.averaged | fixed)
    assert not torch.equal(found.trained["stem.weight"], found.averaged["stem.weight"])


def test_a_checkpoint_without_averages(tiny):
    del tiny["ema"]
    assert from_lightning(tiny).averaged is None


@pytest.mark.parametrize("settings", [V2, PLAIN], ids=["v2", "48k"])
def test_what_goes_out_comes_in_again(tmp_path, settings):
    config = SgmseConfig.model_validate(settings)
    trained, averaged = states(config)
    write_state_dict(tmp_path / "a.ckpt", to_lightning(config, trained, averaged, updates=7))
    # Nothing in it but tensors and plain values.
    found = from_lightning(torch.load(tmp_path / "a.ckpt", weights_only=True))
    assert found == Released(config, found.trained, found.averaged, 7)
    same(found.trained, trained)
    same(found.averaged, averaged)


def test_averages_of_a_run_without_any():
    config = SgmseConfig.model_validate(V2)
    (trained,) = states(config, 1)
    found = from_lightning(to_lightning(config, trained))
    same(found.averaged, trained)


def test_early_names(tiny):
    told = tiny["hyper_parameters"]
    del told["backbone"], told["N"]
    told |= {"sde": "bbve", "sigma_max": 2.6, "theta": 0.51, "sde_n": 25, "loss_type": "mse", "centered": False}
    config = from_lightning(tiny).config
    process = {"name": "bbed", "k": 2.6, "theta": 0.51, "t_eps": 0.03}
    assert config.process.model_dump() == process
    assert (config.network.variant, config.network.centered, config.sampling.steps) == ("v1", False, 25)


def test_settings_that_are_not_told_are_those_of_the_first_version(tiny):
    tiny["hyper_parameters"] = {"n_fft": 30}
    config = from_lightning(tiny).config
    assert config == SgmseConfig(network=config.network, spectrogram={"n_fft": 30}, sampling={"padding": "zero"})


@pytest.mark.parametrize("told", [None, 16000])
def test_a_48k_network_is_of_48_khz_whatever_the_settings_forgot(told):
    config = SgmseConfig.model_validate(PLAIN)
    checkpoint = to_lightning(config, *states(config, 1))
    checkpoint["hyper_parameters"]["sr"] = told
    assert from_lightning(checkpoint).config.sample_rate == 48000
    checkpoint["hyper_parameters"]["sr"] = 44100
    assert from_lightning(checkpoint).config.sample_rate == 44100


@pytest.mark.parametrize(("settings", "padding"), [(V2, "reflection"), (PLAIN, "reflection")], ids=["v2", "48k"])
def test_frames_are_added_as_the_released_program_does(tiny, settings, padding):
    config = SgmseConfig.model_validate(settings)
    assert from_lightning(to_lightning(config, *states(config, 1))).config.sampling.padding == padding
    assert from_lightning(tiny).config.sampling.padding == "zero"


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"backbone": "ncsnpp_v3"}, "ncsnpp_v3'. Did you mean ncsnpp_v2"),
        ({"backbone": ["ncsnpp"]}, "backbone="),
        ({"backbone": "ncsnpp_48k"}, "backbone=ncsnpp_48k, with tensors of v1"),
        ({"sde": "ouvp"}, "sde='ouvp'. Did you mean ouve"),
        ({"nf": 8}, "nf=8, but the tensors are of 4"),
        ({"ch_mult": [1, 2]}, r"ch_mult=\[1, 2\], but the tensors are of \(1, 1\)"),
        ({"num_res_blocks": 2}, "num_res_blocks=2"),
        ({"attn_resolutions": (8,)}, "attn_resolutions"),
        ({"loss_type": "denoiser"}, "loss_type=denoiser"),
        ({"window": "hamming"}, 'spectrogram.window: "hamming" is not valid. Did you mean hann'),
        ({"theta": "much"}, 'process.theta: "much"'),
        ({"n_fft": 32}, "17 bins"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit(tiny, told, message):
    tiny["hyper_parameters"] |= told
    with pytest.raises(CheckpointError, match=message):
        from_lightning(tiny)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.pop("state_dict"), "no network in it"),
        (lambda c: c.update(state_dict={"score_net.a": torch.ones(1)}), r"no network in it \(score_net.a"),
        (lambda c: c["state_dict"].pop("dnn.output_layer.bias"), "1 missing: output_layer.bias"),
        (lambda c: c["ema"]["shadow_params"].pop(), "of another shape"),
        (lambda c: c["ema"]["shadow_params"].__delitem__(slice(5)), "ema.shadow_params has 136 entries"),
        (lambda c: c["ema"]["shadow_params"].reverse(), "of another shape"),
        (
            lambda c: c["state_dict"].update({"dnn.output_layer.bias": torch.ones(2).to_sparse()}),
            "1 missing: output_layer.bias",
        ),
        (lambda c: c["ema"].update(shadow_params=None), "ema.shadow_params has 0 entries"),
        (lambda c: c["ema"].update(shadow_params=[1] * 141), "ema.shadow_params has 141 entries"),
    ],
)
def test_tensors_that_do_not_fit(tiny, spoil, message):
    spoil(tiny)
    with pytest.raises(CheckpointError, match=message):
        from_lightning(tiny)


def test_the_order_of_averages_is_that_of_the_tensors(tiny):
    """Also where the file's tensors come in another order."""
    wanted = from_lightning(copy.deepcopy(tiny))
    tiny["state_dict"] = dict(sorted(tiny["state_dict"].items()))
    same(from_lightning(tiny).averaged, wanted.averaged)
    order = [name.removeprefix("dnn.") for name in read_checkpoint(GOLDEN / "tiny_lightning.ckpt")["state_dict"]]
    assert list(to_released(wanted.trained, wanted.config.network)) == order


def test_scalings_around_networks_that_have_none(tiny):
    """Settings of the program that its v1 wrapper does not heed are not taken over, and cannot be asked for."""
    tiny["hyper_parameters"] |= {"c_in": "edm", "network_scaling": "1/t"}
    assert from_lightning(tiny).config.wrapping.c_in == "1"
    with pytest.raises(ValidationError, match="not of variant v2"):
        SgmseConfig.model_validate(PLAIN | {"wrapping": {"c_in": "edm"}})


def test_the_first_papers_network_has_no_published_checkpoints():
    config = SgmseConfig.model_validate({"network": {"name": "dcunet"}, "spectrogram": {"n_fft": 512}})
    assert config.version == "v1"
    with torch.device("meta"):
        state = build_network(config).state_dict()
    with pytest.raises(CheckpointError, match="network dcunet"):
        to_lightning(config, state)
    with pytest.raises(ValidationError, match="n_fft=512"):
        SgmseConfig.model_validate({"network": {"name": "dcunet"}, "spectrogram": {"n_fft": 510}})
