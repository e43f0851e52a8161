"""`generative import`: published files to a folder that networks start from; and released files back out of a run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from generative.hub.legacy import read_checkpoint, read_state_dict, write_state_dict
from generative.method import DataFacts, NetworkSpec
from generative.methods.mee_gan.config import MeeGanConfig
from generative.methods.mee_gan.network import build_discriminator, build_generator
from generative.methods.sgmse.config import SgmseConfig
from generative.methods.sgmse.convert import from_lightning
from generative.nets.ncsnpp import Ncsnpp
from generative.nets.smdm_layout import to_smdm
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig
from generative.randomness import Streams
from generative.training.backend import Backend
from generative.training.checkpoint import CheckpointStore
from generative.training.config import TrainConfig
from generative.training.networks import build_engines
from generative.training.state import entries
from launch import export, importing
from launch.cli import main
from tests.support.toys import Regression

GOLDEN = Path(__file__).parents[1] / "golden" / "mee_gan" / "nets_32.safetensors"
CONFIG = MeeGanConfig(network={"name": "dcgan", "width": 4}, latent=8, code=5, unused_head=True)
SHAPE = (3, 32, 32)


class Pair(Regression):
    """The two networks, from a source."""

    source: str | None = None

    def networks(self):
        return {
            "generator": NetworkSpec(lambda: build_generator(CONFIG, SHAPE), ema=(0.9,), init_from=self.source),
            "discriminator": NetworkSpec(lambda: build_discriminator(CONFIG, SHAPE), init_from=self.source),
        }

    def updates(self):
        return []


def engines(source: object = None):
    method = Pair()
    object.__setattr__(method, "source", source and str(source))
    return build_engines(method, TrainConfig(steps=1, seed=3), 1, Backend())[0]


@pytest.fixture
def published(tmp_path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Files of the released code in a folder, and what is in them."""
    arrays = load_file(GOLDEN)
    states = {
        name: {key[3:]: value for key, value in arrays.items() if key.startswith(prefix)}
        for name, prefix in (("50gen.pth", "G0."), ("50cls.pth", "D0."))
    }
    (tmp_path / "theirs").mkdir()
    for name, state in states.items():
        write_state_dict(tmp_path / "theirs" / name, state)
    return states


@pytest.mark.parametrize("shard", ["5GB", "2KB"])
def test_a_pair_starts_both_networks(tmp_path: Path, published, shard: str) -> None:
    out = tmp_path / "out"
    words = ["import", str(tmp_path / "theirs" / "50gen.pth"), "--out", str(out), "--max-shard", shard]
    assert main(words) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["networks"] == ["generator", "discriminator"]
    assert MeeGanConfig.model_validate(config["method"]) == CONFIG.model_copy(
        update={"network": CONFIG.network.model_copy(update={"discriminator_width": 4})}
    )
    assert DataFacts(**config["facts"]).sample_shape == list(SHAPE)
    assert set(config["source"]["files"]) == set(published)
    started = engines(out)
    for name, file in (("generator", "50gen.pth"), ("discriminator", "50cls.pth")):
        torch.testing.assert_close(dict(started[name].module.state_dict()), published[file], rtol=0, atol=0)
    assert main(words) == 2
    assert main([*words, "--force"]) == 0


def test_one_network_alone(tmp_path: Path, published, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs" / "50cls.pth").unlink()
    assert main(["import", str(tmp_path / "theirs"), "--file", "50gen.pth", "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["network"] == "generator"
    shown = capsys.readouterr().out
    assert "generator (" in shown
    assert "discriminator (" not in shown
    with pytest.raises(Exception, match="no network 'discriminator'"):
        engines(tmp_path / "out")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda state: state.pop("model.4.running_var"), "model.4.running_var is missing"),
        (lambda state: state.update(extra=torch.ones(1)), "extra is surplus"),
        (lambda state: state.update({"model.1.bias": torch.ones(3)}), "model.1.bias is [3] instead of [16]"),
    ],
)
def test_every_tensor_is_checked(tmp_path: Path, published, spoil, told: str, capsys) -> None:
    state = dict(published["50gen.pth"])
    spoil(state)
    write_state_dict(tmp_path / "theirs" / "50gen.pth", state)
    assert main(["import", str(tmp_path / "theirs" / "50gen.pth"), "--out", str(tmp_path / "out")]) == 3
    shown = capsys.readouterr().err
    assert told in shown
    assert "50gen.pth" in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "method"), [("mdm", "masked_diffusion"), ("ar", "autoregressive")])
def test_language_models(tmp_path: Path, kind: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = TransformerConfig(layers=2, heads=2, width=16, ff_width=24, vocab_size=64, max_length=32)
    net = Transformer(sizes, causal=kind == "ar", mask_row=kind == "mdm")
    file = tmp_path / f"{kind}-6M-3e18.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in to_smdm(net.state_dict(), sizes).items()}, file)
    monkeypatch.setattr("generative.nets.smdm_checkpoints.published_size", lambda name, family: sizes)
    assert main(["import", str(file), "--out", str(tmp_path / "out")]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["network"], config["method"]["name"]) == ("net", method)
    assert TransformerConfig(**config["method"]["network"]) == sizes
    stored = load_file(tmp_path / "out" / "model.safetensors")
    torch.testing.assert_close(stored, dict(net.state_dict()), rtol=0, atol=0)


def test_files_of_the_hub(tmp_path: Path, published, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    asked, reason = [], {}

    def download(repository, file, revision=None):
        asked.append((repository, file, revision))
        if file in reason:
            raise reason[file]
        return str(tmp_path / "theirs" / Path(file).name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    words = ["import", "hub:someone/mee", "--file", "a/50gen.pth", "--revision", "v1", "--out"]
    assert main([*words, str(tmp_path / "both")]) == 0
    assert asked == [("someone/mee", "a/50gen.pth", "v1"), ("someone/mee", "a/50cls.pth", "v1")]
    assert "networks" in json.loads((tmp_path / "both" / "config.json").read_text())
    reason["a/50cls.pth"] = EntryNotFoundError("no such entry")
    assert main([*words, str(tmp_path / "one")]) == 0
    assert json.loads((tmp_path / "one" / "config.json").read_text())["network"] == "generator"
    # That the network is down does not mean that there is no such file.
    reason["a/50cls.pth"] = LocalEntryNotFoundError("cannot reach the hub")
    assert main([*words, str(tmp_path / "none")]) == 3
    assert "cannot reach the hub" in capsys.readouterr().err
    assert main(["import", "hub:someone/mee", "--out", str(tmp_path / "none")]) == 2
    assert "--file" in capsys.readouterr().err


def test_a_repository_of_which_only_the_configuration_is_here(tmp_path: Path, monkeypatch, capsys) -> None:
    hub = pytest.importorskip("huggingface_hub")
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(hub, "hf_hub_download", lambda repository, file, revision=None: tmp_path / file)
    monkeypatch.setattr(hub, "snapshot_download", lambda *given, **options: tmp_path)
    assert main(["import", "hub:me/mine", "--method", "llada", "--out", str(tmp_path / "out")]) == 3
    told = capsys.readouterr().err
    assert "hub:me/mine: no weights came from there" in told
    assert "check the network" in told


def test_a_folder_of_several_files_lists_them(tmp_path: Path, capsys) -> None:
    for name in ("b.pth", "a.pth"):
        (tmp_path / name).touch()
    assert main(["import", str(tmp_path), "--out", str(tmp_path / "none")]) == 2
    assert "one of a.pth, b.pth" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["{}/50gen.pth", "--method", "mee_gam"], 2, "Did you mean mee_gan?"),
        (["{}/unnamed.pth"], 2, "give --method"),
        (["{}/weights.pth"], 3, "weights.pth: no such file"),
        (["{}", "--file", "weights.pth"], 3, "weights.pth: no such file"),
        (["{}/weights.pth", "--method", "adm"], 3, "weights.pth: no such file"),
        (["{}/60gen.pth"], 3, "no such file"),
        (["{}"], 2, "--file NAME"),
        (["{}/50gen.pth", "--method", "masked_diffusion"], 3, "50gen.pth"),
        (["{}/50gen.pth", "--max-shard", "much"], 2, "not a size"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, published, words, code: int, told: str, capsys) -> None:
    (tmp_path / "theirs" / "unnamed.pth").touch()
    words = [word.format(tmp_path / "theirs") for word in words]
    assert main(["import", *words, "--out", str(tmp_path / "out")]) == code
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------- and back


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The checkpoint of a run of the pair, and its engines."""
    trained = engines()
    trained["generator"].emas[0].average["model.0.weight"].fill_(0.25)
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    store.save(7, entries(trained, {}, 0, 1), {}, asynchronous=False)
    method = CONFIG.model_copy(update={"ema": [0.9]})
    monkeypatch.setattr(export, "read_config", lambda folder: SimpleNamespace(method=method))
    return tmp_path / "run", trained


@pytest.mark.parametrize("weights", ["trained", "ema=0.9"])
def test_released_files_of_a_run(tmp_path: Path, run, weights: str) -> None:
    folder, trained = run
    words = ["export", str(folder), "--to", str(tmp_path / "out"), "--layout", "released", "--weights", weights]
    assert main(words) == 0
    written = [path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")]
    assert sorted(written) == ["7cls.pth", "7gen.pth"]
    found = read_state_dict(tmp_path / "out" / "7gen.pth")
    expected = dict(trained["generator"].module.state_dict())
    if weights != "trained":
        expected["model.0.weight"] = torch.full_like(expected["model.0.weight"], 0.25)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    judge = read_state_dict(tmp_path / "out" / "7cls.pth")
    torch.testing.assert_close(judge, dict(trained["discriminator"].module.state_dict()), rtol=0, atol=0)
    # And in again.
    assert main(["import", str(tmp_path / "out" / "7cls.pth"), "--out", str(tmp_path / "again")]) == 0
    assert main(words) == 2
    assert main([*words, "--force"]) == 0


def test_methods_without_released_files(tmp_path: Path, run, monkeypatch, capsys) -> None:
    other = SimpleNamespace(name="kl_vae", ema=[])
    monkeypatch.setattr(export, "read_config", lambda folder: SimpleNamespace(method=other))
    assert main(["export", str(run[0]), "--to", str(tmp_path / "out"), "--layout", "released"]) == 2
    assert "one of autoregressive, masked_diffusion, mee_gan" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class Enhancer(Regression):
    """The network of the released checkpoint."""

    config = SgmseConfig()

    def networks(self):
        return {"net": NetworkSpec(lambda: Ncsnpp(self.config.network), ema=(0.999,), init_from=self.source)}

    def updates(self):
        return []


@pytest.mark.parametrize("words", [[], ["--as-trained"]])
def test_speech_models_in_and_out(tmp_path: Path, words, monkeypatch, capsys) -> None:
    file, out = GOLDEN.parents[1] / "sgmse" / "tiny_lightning.ckpt", tmp_path / "out"
    assert main(["import", str(file), "--out", str(out), *words]) == 0
    wanted = from_lightning(read_checkpoint(file))
    config = json.loads((out / "config.json").read_text())
    assert SgmseConfig.model_validate(config["method"]) == wanted.config
    assert config["weights"] == ("published" if words else "published averages")
    assert "audio-to-audio" in (out / "README.md").read_text()
    state = dict(wanted.trained if words else wanted.averaged)
    torch.testing.assert_close(load_file(out / "model.safetensors"), state, rtol=0, atol=0)
    # A run that starts from it, exported for the released code.
    method = Enhancer()
    object.__setattr__(method, "source", str(out))
    object.__setattr__(method, "config", wanted.config)
    started = build_engines(method, TrainConfig(steps=1, seed=3), 1, Backend())[0]
    torch.testing.assert_close(dict(started["net"].module.state_dict()), state, rtol=0, atol=0)
    started["net"].emas[0].average["stem.weight"].fill_(0.25)
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    store.save(7, entries(started, {}, 0, 1), {}, asynchronous=False)
    monkeypatch.setattr(export, "read_config", lambda folder: SimpleNamespace(method=wanted.config))
    theirs = ["export", str(tmp_path / "run"), "--to", str(tmp_path / "theirs"), "--layout", "released"]
    assert main([*theirs, "--weights", "ema"]) == 0
    assert "batch normalisation" not in capsys.readouterr().out
    back = from_lightning(read_checkpoint(tmp_path / "theirs" / "step=7.ckpt"))
    assert (back.config, back.updates) == (wanted.config, 7)
    torch.testing.assert_close(dict(back.trained), state, rtol=0, atol=0)
    averaged = state | {"stem.weight": torch.full_like(state["stem.weight"], 0.25)}
    torch.testing.assert_close(dict(back.averaged), averaged, rtol=0, atol=0)


def test_weights_that_come_in_one_set(tmp_path: Path, published, capsys) -> None:
    words = ["import", str(tmp_path / "theirs" / "50gen.pth"), "--as-trained", "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "leave out --as-trained" in capsys.readouterr().err


def test_importing_reads_each_network_under_its_name() -> None:
    states = {"a": {"w": torch.ones(1)}, "b": {"w": torch.zeros(1)}}
    assert set(importing.stored_tensors(states)) == {"a/w", "b/w"}
    assert set(importing.stored_tensors({"a": states["a"]})) == {"w"}


@pytest.mark.parametrize("method", ["llada", "mdlm"])
def test_a_folder_of_a_language_model_is_imported_and_loaded(tmp_path: Path, method: str, capsys) -> None:
    from generative.hub.loading import load_exported
    from tests.support import peer_layouts as layouts

    state = {name: t.float() for name, t in getattr(layouts, f"{method}_state")().items()}
    source, names = tmp_path / "theirs", sorted(state)
    source.mkdir()
    for number, part in enumerate((names[:5], names[5:])):
        save_file({name: state[name] for name in part}, source / f"model-{number}.safetensors")
    command = ["import", str(source), "--method", method, "--out", str(tmp_path / "out")]
    assert main(command) == 3
    assert "config.json" in capsys.readouterr().err
    values = layouts.LLADA if method == "llada" else layouts.MDLM
    (source / "config.json").write_text(json.dumps(values))
    assert main(command) == 0
    model = load_exported(tmp_path / "out")
    net = model.networks["net"]
    mask = 21 if method == "llada" else 12
    ids = torch.tensor([[3, mask, 5, 7, mask, 1]])
    ours = ids.masked_fill(ids == mask, model.method.mask_id)
    with torch.no_grad():
        logits = getattr(layouts, f"{method}_logits")({n: t.double() for n, t in state.items()}, ids)
        torch.testing.assert_close(net(ours), logits[..., : net.config.padded_vocab].float(), rtol=1e-4, atol=1e-4)
    drawn = model.method.sampler(model.networks)(
        {"sample_id": torch.arange(2), "canvas": ours.expand(2, -1)}, Streams(0)
    )
    assert not (drawn == mask).any()
