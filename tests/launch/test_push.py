"""`generative push` against a server on the loopback device, and what is loaded from there again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from generative.errors import ConfigError, ResourceError
from generative.hub.card import Card
from generative.hub.export import Export
from generative.hub.llama import llama_config, llama_tensors
from generative.hub.push import files_to_push, push
from generative.hub.tensors import InMemory
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig
from launch.cli import main
from tests.support.hub_server import serve

hub = pytest.importorskip("huggingface_hub")
pytest.importorskip("transformers")
TOKEN = "hf_verySecretAndWrittenNowhere"
SIZES = TransformerConfig(layers=1, heads=2, width=8, ff_width=8, vocab_size=12, padding_multiple=8)
CARD = Card("tiny", "A model.", "transformers", "text-generation", [], {}, "", [], "", ("python", "pass"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    """A hub, and this process as a user who is logged in to it."""
    with serve(TOKEN) as running:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        places = f"{running.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        settings = {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "ENDPOINT": running.url}
        for name, value in {**settings, "HUGGINGFACE_CO_URL_TEMPLATE": places}.items():
            monkeypatch.setattr(hub.constants, name, value)
        yield running


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model, exported in the layout of Llama."""
    torch.manual_seed(0)
    source = InMemory(Transformer(SIZES, causal=False, mask_row=True).state_dict())
    tensors, padded = llama_tensors(source.saved(), source, SIZES, mask_row=True)
    Export(padded, tensors, llama_config(SIZES, None, mask_row=True), CARD).write(tmp_path / "mdm", 2000)
    return tmp_path / "mdm"


def test_a_folder_goes_there_and_comes_back(server, model: Path, tmp_path: Path, capfd, caplog) -> None:
    (model / ".cache").mkdir()
    (model / ".cache" / "notes.json").write_text("{}")
    with caplog.at_level("DEBUG"):
        assert main(["push", str(model), "me/mdm", "--private", "-m", "First"]) == 0
    assert [(c["organization"], c["name"], c["visibility"]) for c in server.created] == [("me", "mdm", "private")]
    assert server.commits == ["First"]
    sent = server.repositories["me/mdm"]
    assert sent == {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    assert len([name for name in sent if name.endswith(".safetensors")]) == len(server.objects) > 1
    shown = capfd.readouterr()
    assert f"{server.url}/me/mdm/commit/" in shown.out
    assert "states no licence" in shown.out
    assert TOKEN not in shown.out + shown.err + caplog.text
    # Again: the same repository, another commit.
    assert main(["push", str(model), "me/mdm"]) == 0
    assert (len(server.created), len(server.commits)) == (1, 2)
    back = tmp_path / "back"
    for name in sent:
        hub.hf_hub_download("me/mdm", name, local_dir=back, endpoint=server.url)
    from generative.hub.bidirectional import BidirectionalLlama

    ids = torch.arange(10)[None]
    first, again = (BidirectionalLlama.from_pretrained(folder).eval()(ids).logits for folder in (model, back))
    assert torch.equal(first, again)


def test_a_wrong_token_is_told_and_not_shown(server, model: Path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert main(["push", str(model), "me/mdm"]) == 3
    told = capfd.readouterr()
    assert "me/mdm cannot be pushed to" in told.err
    assert "hf_another" not in told.out + told.err
    assert server.repositories == {}


def test_a_hub_that_is_not_there(model: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ResourceError, match="cannot be pushed to") as caught:
        push(model, "me/mdm", endpoint="http://127.0.0.1:9")
    assert TOKEN not in str(caught.value)


def test_no_token(model: Path, monkeypatch) -> None:
    monkeypatch.setattr(hub, "get_token", lambda: None)
    with pytest.raises(ConfigError, match="no token"):
        push(model, "me/mdm")


@pytest.mark.parametrize("name", ["me/my/mdm", "me/ mdm", "mdm"])
def test_names_that_the_hub_does_not_know(model: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no name of a repository"):
        push(model, name)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling_mine.py", "weights/model.ckpt"])
def test_what_could_run_code_is_not_sent(model: Path, name: str) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(b"")
    with pytest.raises(ConfigError, match="could run code") as caught:
        push(model, "me/mdm")
    assert name in caught.value.problem


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="holds no model"):
        files_to_push(tmp_path)
    with pytest.raises(ConfigError, match=r"gone: no such folder(.|\n)*correct the path"):
        files_to_push(tmp_path / "gone")


def test_weights_are_loaded_from_safetensors_only(model: Path, tmp_path: Path) -> None:
    """A pickle beside them is not looked at, and one instead of them is refused."""
    other = tmp_path / "pickled"
    shutil.copytree(model, other)
    for path in other.glob("*.safetensors*"):
        path.unlink()
    torch.save({}, other / "pytorch_model.bin")
    from generative.hub.bidirectional import BidirectionalLlama

    with pytest.raises(OSError, match="safetensors"):
        BidirectionalLlama.from_pretrained(other)
