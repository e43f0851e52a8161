"""Checkpoints of guided-diffusion and latent-diffusion as priors: outputs, published names, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from generative.errors import CheckpointError, ConfigError
from generative.hub.diffusion_priors import open_pipeline_prior
from generative.hub.first_stage_keys import to_autoencoder
from generative.hub.legacy import write_state_dict
from generative.hub.published_priors import PRIORS, PublishedPrior
from generative.hub.unet_keys import to_unet
from generative.methods.stsl.levels import linear_alphas, scaled_linear_alphas
from launch.cli import main
from tests.support.released_unets import FirstStage, Store, UNet

pytest.importorskip("diffusers")
CPU = torch.device("cpu")
KEYS = Path(__file__).parents[2] / "golden" / "stsl" / "checkpoint_keys.json"
ADM, LDM = UNet(out=6), UNet(out=3, residual=False, shifted=False, multipliers=(1, 2, 2), blocks=2, attention=(1, 2))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def adm_file(folder: Path, net: UNet = ADM, classes: bool = False) -> tuple[Path, Store]:
    store = Store(1)
    net(store, noise(1, 3, 8, 8), torch.tensor([3]), torch.tensor([0]) if classes else None)
    write_state_dict(folder / "small.pt", store)
    return folder / "small.pt", store


def ldm_file(folder: Path, first: FirstStage, betas: Tensor, scale: float | None = None) -> tuple[Path, Store, Store]:
    """A checkpoint with averages that are not the weights; the store of the averages, and of the first stage."""
    trained, averaged, stage = Store(1), Store(2), Store(3)
    for store in (trained, averaged):
        LDM(store, noise(1, 3, 4, 4), torch.tensor([3]))
    first.decode(stage, first.encode(stage, noise(1, 3, 8, 8)))
    state: dict[str, Tensor] = {f"model.diffusion_model.{name}": tensor for name, tensor in trained.items()}
    dotless = {f"diffusion_model{name.replace('.', '')}": tensor for name, tensor in averaged.items()}
    state |= {f"model_ema.{name}": tensor for name, tensor in dotless.items()}
    state |= {"model_ema.decay": torch.tensor(0.99), "model_ema.num_updates": torch.tensor(7)}
    state |= {f"first_stage_model.{name}": tensor for name, tensor in stage.items()}
    state |= {"first_stage_model.loss.perceptual.weight": torch.ones(2)}
    state |= {"betas": betas, "alphas_cumprod": (1 - betas).cumprod(0), "posterior_variance": betas}
    state |= {} if scale is None else {"scale_factor": torch.tensor(scale)}
    write_state_dict(folder / "model.ckpt", {"state_dict": state, "global_step": 3, "epoch": 1})
    return folder / "model.ckpt", averaged, stage


def betas_of(alphas: Tensor) -> Tensor:
    return 1 - alphas / torch.cat([torch.ones(1, dtype=alphas.dtype), alphas[:-1]])


def imported(file: Path, method: str, out: Path, *words: str) -> int:
    return main(["import", str(file), "--method", method, "--out", str(out), *words])


def test_adm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Heads, scale and shift, resampling by residual blocks: noise and variances are those of the network."""
    file, store = adm_file(tmp_path)
    assert imported(file, "adm", tmp_path / "out", "--set", "size=8", "--set", "head_width=32") == 0
    assert "heads of 32 channels" in capsys.readouterr().out
    prior = open_pipeline_prior(tmp_path / "out", CPU)
    assert (prior.shape, prior.latent) == ((3, 8, 8), False)
    level, z = prior.levels(10)[4], noise(2, 3, 8, 8, seed=5)
    assert level.alpha_bar == pytest.approx(float(linear_alphas()[int(level.time)]), rel=1e-5)
    assert prior.both is not None
    wanted = ADM(store, z, torch.full((2,), level.time))
    with torch.no_grad():
        e, v = prior.both(z, level)
    torch.testing.assert_close(torch.cat([e, v], 1), wanted, rtol=1e-4, atol=1e-4)
    # and diffusers reads the folder itself
    from diffusers import DDPMPipeline

    assert DDPMPipeline.from_pretrained(tmp_path / "out").scheduler.config.variance_type == "learned_range"


def test_adm_with_classes(tmp_path: Path) -> None:
    net = UNet(out=3, classes=5, multipliers=(1, 1), attention=())
    file, store = adm_file(tmp_path, net, classes=True)
    assert imported(file, "adm", tmp_path / "out", "--set", "size=8", "--set", "head_width=32") == 0
    prior, z = open_pipeline_prior(tmp_path / "out", CPU, label=3), noise(2, 3, 8, 8)
    level = prior.levels(10)[4]
    with torch.no_grad():
        found = prior.noise(z, level)
    wanted = net(store, z, torch.full((2,), level.time), torch.tensor([3, 3]))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="without a class"):
        open_pipeline_prior(tmp_path / "out", CPU)
    with pytest.raises(ConfigError, match="label 5"):
        open_pipeline_prior(tmp_path / "out", CPU, label=5)


@pytest.mark.parametrize("codes", [0, 16])
def test_ldm(tmp_path: Path, codes: int) -> None:
    """Averaged U-Net, schedule, and a KL or VQ first stage with its scale."""
    first = FirstStage(codes=codes)
    betas = betas_of(scaled_linear_alphas(0.0015, 0.0195))
    file, averaged, stage = ldm_file(tmp_path, first, betas, None if codes else 0.5)
    assert imported(file, "ldm", tmp_path / "out", "--set", "size=4") == 0
    prior = open_pipeline_prior(tmp_path / "out", CPU)
    assert (prior.shape, prior.image, prior.latent) == ((3, 4, 4), (3, 8, 8), True)
    levels, z = prior.levels(50), noise(2, 3, 4, 4, seed=5)
    alphas = scaled_linear_alphas(0.0015, 0.0195)
    assert levels[0].time == 981
    assert levels[0].alpha_bar == pytest.approx(float(alphas[981]), rel=1e-4)
    # the last level is the first alpha, not 1
    assert levels[-1].alpha_bar == pytest.approx(float(alphas[0]), rel=1e-6)
    scale, x = 1.0 if codes else 0.5, noise(2, 3, 8, 8, seed=6)
    assert prior.encode is not None
    assert prior.decode is not None
    with torch.no_grad():
        torch.testing.assert_close(
            prior.noise(z, levels[10]), LDM(averaged, z, torch.full((2,), levels[10].time)), rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(prior.encode(x), scale * first.encode(stage, x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(prior.decode(z), first.decode(stage, z / scale), rtol=1e-4, atol=1e-4)


def test_the_weights_as_trained_and_other_schedules(tmp_path: Path) -> None:
    betas = torch.linspace(-7, -3, 20).exp()
    file, averaged, _ = ldm_file(tmp_path, FirstStage(), betas, 0.5)
    reader = PRIORS["ldm"]
    settings = reader.settings({"size": "4", "scale": "0.25"})
    trained, smooth = reader.read(file, settings, True), reader.read(file, settings, False)
    assert torch.equal(smooth.parts["unet"].state["conv_in.weight"], averaged["input_blocks.0.0.weight"])
    assert not torch.equal(trained.parts["unet"].state["conv_in.weight"], averaged["input_blocks.0.0.weight"])
    assert trained.parts["vae"].config["scaling_factor"] == 0.25
    assert trained.parts["scheduler"].config["trained_betas"] == pytest.approx(betas.tolist())
    assert "weights as trained" in trained.notes


def test_the_published_networks_have_these_names_and_shapes() -> None:
    """All tensors of ADM FFHQ-256, LDM FFHQ-256, VQ-f4 and Stable Diffusion's autoencoder, on the meta device."""
    told: dict[str, dict[str, list[int]]] = json.loads(KEYS.read_text())

    def state(start: str) -> dict[str, Tensor]:
        (found,) = (shapes for name, shapes in told.items() if name.startswith(start))
        return {name: torch.empty(shape, device="meta") for name, shape in found.items()}

    adm, ldm = to_unet(state("adm_ffhq"), "adm", 256, 64), to_unet(state("ldm_ffhq256_unet"), "ldm", 64, 32)
    vq, kl = (to_autoencoder(state(name), name, 256, 1.0) for name in (next(k for k in told if "vq" in k), "sd_v1_kl"))
    parts = {"adm": adm, "ldm": ldm, "vq": vq, "kl": kl}
    PublishedPrior("", parts).check("published")
    assert {name: len(part.state) for name, part in parts.items()} == {
        "adm": 362 + 2 * 2 * _attentions(adm.state),
        "ldm": 368 + 2 * 2 * _attentions(ldm.state),
        "vq": 205,
        "kl": 248,
    }
    sizes = {name: sum(t.numel() for t in part.state.values()) / 1e6 for name, part in parts.items()}
    assert sizes == pytest.approx({"adm": 93.56, "ldm": 274.06, "vq": 55.32, "kl": 83.65}, abs=0.006)
    assert (vq.kind, kl.kind) == ("VQModel", "AutoencoderKL")
    assert adm.config["block_out_channels"] == [128, 128, 256, 256, 512, 512]
    assert (adm.config["resnet_time_scale_shift"], ldm.config["resnet_time_scale_shift"]) == ("scale_shift", "default")
    assert adm.config["down_block_types"].index("AttnDownBlock2D") == 4


def _attentions(state: Any) -> int:
    """One matrix of queries, keys and values became three, with their biases."""
    return sum(name.endswith("to_q.weight") for name in state)


def test_text_to_image_checkpoints_are_refused_with_the_way_to_go() -> None:
    told = json.loads(KEYS.read_text())
    (unet,) = (shapes for name, shapes in told.items() if name.startswith("sd_v1_unet"))
    state = {name: torch.empty(shape, device="meta") for name, shape in unet.items()}
    with pytest.raises(CheckpointError, match="cross-attention"):
        to_unet(state, "sd", 64, 8)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: s.update(extra=torch.ones(1)), "extra is not known here"),
        (lambda s: s.pop("out.2.weight"), "out.2.weight is missing"),
        (lambda s: s.pop("input_blocks.1.0.in_layers.2.bias"), "conv1.bias is missing"),
        (lambda s: s.update({"out.2.bias": torch.ones(5)}), r"conv_out.bias is \[5\] instead of \[6\]"),
        (lambda s: [s.pop(name) for name in list(s) if name.startswith("output_blocks.3.")], "unequal numbers"),
    ],
)
def test_every_tensor_is_accounted_for(tmp_path: Path, spoil: Any, said: str) -> None:
    file, store = adm_file(tmp_path)
    spoil(store)
    write_state_dict(file, store)
    reader = PRIORS["adm"]
    with pytest.raises(CheckpointError, match=said):
        reader.read(file, reader.settings({"size": "8", "head_width": "32"}), False).check(str(file))


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, _ = adm_file(tmp_path)
    kl, *_ = ldm_file(tmp_path, FirstStage(), betas_of(linear_alphas()))
    text = tmp_path / "text.ckpt"
    write_state_dict(text, {"state_dict": {"cond_stage_model.transformer.weight": torch.ones(1)}})
    for words, code, said in (
        ([file, "adm", "--set", "sise=8"], 2, "Did you mean size?"),
        ([file, "adm", "--set", "size=0"], 2, "above 0"),
        ([file, "adm", "--set", "head_width=48"], 3, "do not divide"),
        ([file, "adm", "--as-trained"], 2, "leave out --as-trained"),
        ([tmp_path / "none.pt", "adm"], 3, "no such file"),
        ([file, "ldm"], 3, "not known here"),
        ([kl, "ldm", "--set", "size=4"], 3, "--set scale="),
        ([text, "ldm"], 3, "from_single_file"),
        ([file, "edm", "--set", "size=8"], 2, "adm or ldm"),
    ):
        path, method, *more = map(str, words)
        assert imported(Path(path), method, tmp_path / "out", *more) == code, said
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_what_is_asked_of_it_restores(tmp_path: Path) -> None:
    """The whole way: a checkpoint, a folder, restorations."""
    file, *_ = ldm_file(tmp_path, FirstStage(codes=16), betas_of(linear_alphas()))
    assert imported(file, "ldm", tmp_path / "ldm", "--set", "size=4") == 0
    from generative.data.image_files import png

    (tmp_path / "y.png").write_bytes(png(torch.zeros(3, 4, 4)))
    words = ["--operator", "superres:factor=2", "--method", "stsl", "--samples", "2", "--set", "steps=2"]
    assert main(["restore", str(tmp_path / "ldm"), str(tmp_path / "y.png"), str(tmp_path / "out"), *words]) == 0
    assert (tmp_path / "out" / "y" / "sample_1.png").is_file()
