"""Latent diffusion through the launcher: the autoencoder first, a model of its latents, what is restored with it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evaluation.restoration import psnr
from generative.data.digits import load_digits
from generative.errors import ConfigError
from generative.method import Context
from generative.methods.edm.method import Edm
from generative.methods.stsl.prior import recomputed
from generative.nets.kl_autoencoder import drawn
from generative.randomness import Streams
from generative.training.checkpoint import open_checkpoint
from generative.training.networks import checkpoint_weights
from launch import runs
from launch.autoencoders import without_missing
from launch.cli import main
from launch.image_samples import picture
from launch.opened import open_run
from launch.reconstructions import check_originals
from launch.restore_files import RECORD
from launch.restore_prior import PriorAsked, open_prior
from launch.run import train
from launch.schema import load_run_config
from tests.support.image_runs import THREE_STEPS

pytest.importorskip("diffusers")

SIZES = {"channels": [8, 16], "layers": 1, "latent": 2, "groups": 4}
FIRST = """
extends: kl_vae/quickstart
method: {network: {channels: [8, 16], layers: 1, latent: 2, groups: 4}, ema: [0.9]}
train: {steps: 3, batch_size: 16, validation: {every_steps: null}, checkpoint: {every_steps: 3}}
evaluate: {samples: 40, extractor: pixels}
"""
TINY = (*THREE_STEPS, "method.ema=[0.9]", "method.ema_power=[]")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("latent")


@pytest.fixture(scope="module")
def words(place: Path) -> list[str]:
    (place / "first.yaml").write_text(FIRST)
    first = [f"method.latents.autoencoder={place / 'vae'}", f"method.latents.autoencoder_config={place / 'first.yaml'}"]
    return [*TINY, *first, f"run.dir={place / 'run'}"]


@pytest.fixture(scope="module")
def run(place: Path, words: list[str]) -> Path:
    """Both, by one command; the autoencoder is gone afterwards, and lies in `vae_moved`."""
    assert train("edm/latent_digits", words) == 0
    shutil.move(place / "vae", place / "vae_moved")
    return place / "run"


def test_the_autoencoder_is_trained_first_and_kept(run: Path, place: Path, words: list[str]) -> None:
    kept = runs.read_config(run).method.latents
    assert kept.network.model_dump(include=set(SIZES), mode="json") == SIZES
    assert kept.weights == "ema=0.9"
    averaged = checkpoint_weights(open_checkpoint(place / "vae_moved"), "autoencoder", 0.9)
    copy = checkpoint_weights(open_checkpoint(run / "checkpoints" / "sources" / "autoencoder"), "autoencoder")
    torch.testing.assert_close(copy, averaged, rtol=0, atol=0)
    # latents of training digits are scaled to unit variance
    opened = open_run(run)
    images = opened.data.train.fetch(range(512))["sample"]
    net = opened.networks("ema")[0]["autoencoder"]
    with torch.no_grad():
        noise = torch.randn(512, 2, 4, 4, generator=torch.Generator().manual_seed(0))
        z = kept.scaling_factor * drawn(*net(images, door="encode"), noise)
    assert z.std().item() == pytest.approx(1, abs=0.03)
    # samples are images, drawn at the end
    assert (run / "samples" / "step_000003.png").is_file()
    # the run is known again though its autoencoder is gone
    again = load_run_config("edm/latent_digits", words)
    assert again.method.latents == kept


def test_an_autoencoder_s_samples_are_held_out_images_through_it(run: Path, place: Path) -> None:
    folder = place / "vae_moved"
    opened = open_run(folder)
    images = opened.data.validation.fetch(range(40))["sample"]
    with torch.no_grad():
        made, *_ = opened.networks("ema")[0]["autoencoder"](images)
    figures = json.loads((folder / "evaluation.json").read_text())["figures"]
    each = psnr(made.clamp(-1, 1), images)
    assert figures["psnr"]["value"] == pytest.approx(float(each.mean()), abs=1e-4)
    assert figures["psnr"]["stderr"] == pytest.approx(float(each.std()) / 40**0.5, rel=1e-3)
    assert "40 reconstructions against held-out" in json.loads((folder / "evaluation.json").read_text())["data"]
    items = json.loads((folder / "samples" / "step_000003.json").read_text())["items"]
    assert [item["title"] for item in items] == ["64 reconstructions", "held-out images, from which they were made"]
    first = opened.data.validation.fetch(range(64))["sample"]
    assert (folder / "samples" / items[1]["file"]).read_bytes() == picture(first, 8, "image")
    # asked for again, and measured by hand
    asked = runs.sample_run(folder, count=4)
    assert [item["count"] for item in asked["items"]] == [4, 4]


@pytest.mark.parametrize("change", ["evaluate.samples=398", "evaluate.reference=train"])
def test_only_what_is_held_out_is_compared(place: Path, words: list[str], change: str) -> None:
    with pytest.raises(ConfigError, match="reconstructs the 397 held-out images"):
        train(str(place / "first.yaml"), [f"run.dir={place / 'refused'}", change])
    assert not (place / "refused" / "checkpoints").exists()


def test_nothing_is_reconstructed_where_nothing_is_held_out(run: Path, place: Path) -> None:
    opened = open_run(place / "vae_moved")
    data = replace(opened.data, validation=[])
    with pytest.raises(ConfigError, match="holds nothing out that could be reconstructed"):
        check_originals(opened.method, data, opened.config.evaluate, measured=False)


def test_the_loss_is_that_of_scaled_latents(run: Path) -> None:
    opened = open_run(run)
    method, nets = opened.method, opened.networks("trained")[0]
    assert isinstance(method, Edm)
    ids = torch.arange(5)
    batch = opened.data.train.fetch(range(5)) | {"sample_id": ids, "position": ids, "valid": torch.ones(5).bool()}
    streams, seen = Streams(0, 3), {}

    def net(noisy, sigma, *_):
        seen.update(noisy=noisy, sigma=sigma)
        return noisy

    context = Context(3, streams, 5)
    method.loss(method.updates()[0], {"net": net, "autoencoder": nets["autoencoder"]}, batch, context)
    with torch.no_grad():
        moments = nets["autoencoder"](batch["sample"], door="encode")
    z = method.scale * drawn(*moments, streams.normal("posterior", ids, (2, 4, 4)))
    noise = streams.normal("noise", ids, (2, 4, 4))
    torch.testing.assert_close(seen["noisy"], z + seen["sigma"][:, None, None, None] * noise)


@pytest.mark.parametrize("method", ["stsl", "psld"])
def test_a_run_of_latents_restores(run: Path, tmp_path: Path, method: str, capsys) -> None:
    out = tmp_path / "out"
    asked = ["restore", str(run), "held_out", str(out), "--operator", "superres:factor=2", "--method", method]
    assert main([*asked, "--count", "2", "--samples", "2", "--set", "steps=3"]) == 0
    assert "latents 2x4x4" in capsys.readouterr().out
    lines = [json.loads(line) for line in (out / RECORD).read_text().splitlines()]
    assert [line["file"] for line in lines] == ["0000.png", "0001.png"]
    assert all(line["cost"]["decoder_vjps"] >= 3 for line in lines)
    assert (out / "0001" / "sample_1.png").is_file()


def test_the_doors_of_the_prior(run: Path) -> None:
    """E takes the posterior's mean, D undoes the scale, and both have gradients that frozen weights leave alone."""
    prior = open_prior(PriorAsked(str(run))).prior
    assert (prior.shape, prior.image, prior.latent) == ((2, 4, 4), (1, 8, 8), True)
    opened = open_run(run)
    net, scale = opened.networks("ema")[0]["autoencoder"], opened.method.scale
    x = torch.from_numpy(load_digits()[1].pixels[:3] / 8.0 - 1)
    assert prior.encode is not None
    assert prior.decode is not None
    z = prior.encode(x).requires_grad_()
    assert z.dtype == torch.float64
    torch.testing.assert_close(z.float(), scale * net(x.float(), door="encode")[0], rtol=1e-5, atol=1e-5)
    image = prior.decode(z)
    torch.testing.assert_close(image.float(), net(z.float() / scale, door="decode"), rtol=1e-5, atol=1e-5)
    assert torch.autograd.grad(image.sum(), z)[0].abs().sum() > 0


@pytest.mark.parametrize("method", ["stsl", "psld", "p2l_style"])
def test_a_decoder_that_is_computed_again_changes_nothing(run: Path, tmp_path: Path, method: str) -> None:
    for name, more in (("kept", []), ("again", ["--checkpoint-decoder"])):
        asked = ["restore", str(run), "held_out", str(tmp_path / name), "--operator", "superres:factor=2", *more]
        assert main([*asked, "--method", method, "--count", "1", "--samples", "2", "--set", "steps=2"]) == 0
    for file in (tmp_path / "kept").rglob("*.png"):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(tmp_path / "kept")).read_bytes()


def test_a_decoder_that_is_computed_again_keeps_its_input_alone(run: Path) -> None:
    kept = open_prior(PriorAsked(str(run))).prior
    z = torch.randn(2, *kept.shape).requires_grad_()
    sizes: dict[bool, list[int]] = {True: [], False: []}
    for prior in (kept, recomputed(kept)):
        held = sizes[prior is kept]
        with torch.autograd.graph.saved_tensors_hooks(lambda x, held=held: held.append(x.numel()) or x, lambda x: x):
            prior.decode(z)
    assert sum(sizes[False]) <= z.numel() < sum(sizes[True]) / 100


def test_export_and_import_of_the_autoencoder(run: Path, place: Path, tmp_path: Path, words: list[str]) -> None:
    """To diffusers' layout and back: the same weights, settings and scale, and a run can begin with the result."""
    from diffusers import AutoencoderKL

    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    vae = ["export", str(place / "vae_moved"), "--weights", "ema", "--to"]
    assert main([*vae, str(theirs), "--layout", "diffusers"]) == 0
    assert sorted(path.name for path in theirs.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    for option in (["--dtype", "bf16"], ["--max-shard", "1KB"], ["--force"]):
        assert main([*vae, str(theirs if option == ["--force"] else ours), "--layout", "diffusers", *option]) == 2
    kept = runs.read_config(run).method.latents
    read = AutoencoderKL.from_pretrained(theirs, use_safetensors=True)
    assert read.config.scaling_factor == kept.scaling_factor
    copy = checkpoint_weights(open_checkpoint(run / "checkpoints" / "sources" / "autoencoder"), "autoencoder")
    torch.testing.assert_close(read.state_dict(), copy, rtol=0, atol=0)
    assert main(["import", str(theirs / "diffusion_pytorch_model.safetensors"), "--out", str(ours)]) == 0
    torch.testing.assert_close(load_file(ours / "model.safetensors"), copy, rtol=0, atol=0)
    own = tmp_path / "own"
    assert main([*vae, str(own)]) == 0
    for folder in (ours, own):
        changed = [word for word in words if "latents" not in word and "run.dir" not in word]
        changed += [f"method.latents.autoencoder={folder}", "method.latents.autoencoder_config=null"]
        latents = load_run_config("edm/latent_digits", changed).method.latents
        assert (latents.network, latents.scaling_factor) == (kept.network, kept.scaling_factor)
        assert latents.weights == "trained"
    with pytest.raises(ConfigError, match="generative import"):
        load_run_config("edm/latent_digits", [f"method.latents.autoencoder={theirs}"])


def test_what_is_wrong_is_told_before_work(run: Path, place: Path, tmp_path: Path, capsys) -> None:
    gone = [f"method.latents.autoencoder={tmp_path / 'none'}", f"run.dir={tmp_path / 'new'}"]
    with pytest.raises(ConfigError, match="no such run, checkpoint or export"):
        load_run_config("edm/latent_digits", [*gone, "method.latents.autoencoder_config=null"])
    # a plan goes by the configuration that would train it
    config = load_run_config("edm/latent_digits", gone)
    assert config.method.latents.network.channels == (16, 32)
    assert without_missing(config).method.latents.autoencoder is None
    asked = [*gone, "launch.workers=1", "train.batch_size=16", "method.network.width=16", "plan.machine=h100-80gb"]
    assert main(["plan", "edm/latent_digits", *asked]) == 0
    assert "autoencoder" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="of the method edm"):
        load_run_config("edm/latent_digits", [f"method.latents.autoencoder={run}"])
    other = [f"method.latents.autoencoder={place / 'vae_moved'}", "method.latents.network.latent=3"]
    with pytest.raises(ConfigError, match=r"latents.network.latent=3, but the autoencoder has 2"):
        load_run_config("edm/latent_digits", other)
    with pytest.raises(ConfigError, match=r"ema=0.5: the autoencoder has no such weights"):
        load_run_config("edm/latent_digits", [other[0], "method.latents.weights=ema=0.5"])
    with pytest.raises(ConfigError, match="diffusion model of latents"):
        load_run_config("f_distill/quickstart", [f"method.teacher={run}"])
    assert main(["restore", str(place / "vae_moved"), "held_out", str(tmp_path / "out")]) == 2
    assert "run of kl_vae" in capsys.readouterr().err
    twice = ["--method", "mmps", "--checkpoint-decoder"]
    assert main(["restore", str(run), "held_out", str(tmp_path / "out"), *twice]) == 2
    assert "mmps, which differentiates the decoder twice" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
