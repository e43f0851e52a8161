"""`generative export` on runs as `generative train` leaves them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from generative.data.tokenizers import FILE, load_tokenizer
from generative.errors import GenerativeError
from generative.hub.loading import load_exported
from generative.method import DataFacts
from generative.methods.catalogue import METHODS
from generative.nets.smdm_layout import from_smdm
from generative.training.checkpoint import open_checkpoint
from generative.training.networks import checkpoint_weights
from launch.cli import main
from launch.opened import read_config
from launch.runs import sample_run, samples_shown
from tests.end_to_end.runs import write_text
from tests.support.documents import ROOT, blocks
from tests.support.hub import loopback_hub

NETWORK = {"layers": 2, "heads": 2, "width": 16, "ff_width": 24, "max_length": 32}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One short run of each method, with an average."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "texts").mkdir()
    write_text(folder / "texts")
    found = {}
    for method, tokenizer in (("autoregressive", "characters"), ("masked_diffusion", "bytes")):
        config = {
            "data": {
                "name": "files",
                "path": str(folder / "texts"),
                "cache": str(folder / "cache"),
                "sequence_length": 32,
                "tokenizer": {"name": tokenizer},
            },
            "method": {"name": method, "network": NETWORK, "ema": [0.5]},
            "train": {
                "steps": 4,
                "batch_size": 4,
                "validation": {"every_steps": 2, "samples": 4},
                "checkpoint": {"every_steps": 2},
            },
            "evaluate": {"windows": 4, "draws": 2},
            "sample": {"at_end": False},
            "launch": {"backend": "local"},
        }
        (folder / f"{method}.yaml").write_text(yaml.safe_dump(config))
        assert main(["train", str(folder / f"{method}.yaml"), f"run.dir={folder / method}"]) == 0
        found[method] = folder / method
    return found


@pytest.mark.parametrize("method", ["autoregressive", "masked_diffusion"])
def test_config_and_weights_build_the_network_again(runs: dict[str, Path], method: str, tmp_path: Path) -> None:
    assert main(["export", str(runs[method]), "--to", str(tmp_path / "out"), "--weights", "ema"]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["architectures"], config["torch_dtype"]) == (["Transformer"], "float32")
    entry = METHODS[config["method"]["name"]]
    section = entry.config().model_validate(config["method"])
    net = entry.build(section, DataFacts(**config["facts"])).networks()[config["network"]].build()
    net.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"))
    kept = checkpoint_weights(open_checkpoint(runs[method]), "net", 0.5)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in net.state_dict().items())
    # The sizes that came from the data are in it too.
    alone = entry.build(section, DataFacts()).networks()[config["network"]].build()
    assert alone.head.weight.shape == net.head.weight.shape
    tokenizer = load_tokenizer(tmp_path / "out")
    assert tokenizer.decode(tokenizer.encode("beta eta")) == "beta eta"
    assert tokenizer.vocab_size == config["facts"]["vocab_size"]


def test_the_card_tells_what_was_measured_on_these_weights_only(runs: dict[str, Path], tmp_path: Path) -> None:
    run = runs["masked_diffusion"]
    trained, averaged, earlier = (tmp_path / name for name in ("trained", "averaged", "earlier"))
    assert main(["export", str(run), "--to", str(trained)]) == 0
    assert main(["export", str(run), "--to", str(averaged), "--weights", "ema=0.5"]) == 0
    assert main(["export", str(run / "checkpoints" / "step_000002"), "--to", str(earlier)]) == 0
    figure = json.loads((run / "evaluation.json").read_text())["figures"]["elbo"]
    card = (trained / "README.md").read_text()
    value = f"{figure['value']:.6f}"[:2]
    line = next(line for line in card.splitlines() if line.startswith("| ELBO |"))
    assert f"| ELBO | {value}" in line
    assert " ± " in line
    assert "upper bound" in line
    for words in ("| steps | 4 |", "| tokens | 512 |", "generative train", "library_name: generative", "## Licence"):
        assert words in card, words
    assert "license:" not in card.replace("# license:", "")
    assert "have not been measured" in (averaged / "README.md").read_text()
    card = (earlier / "README.md").read_text()
    assert "| steps | 2 of 4 |" in card
    assert "ELBO" not in card
    assert "| validation loss (denoise) |" in card


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        ("autoregressive", {"prompt": "alpha", "count": 3, "temperature": 0.7}),
        ("masked_diffusion", {"prompt": "alpha", "count": 3, "steps": 5, "order": "confidence", "seed": 4}),
        ("masked_diffusion", {"infill": "be▁▁ eta", "overrides": ["method.sampling.temperature=0"]}),
    ],
)
def test_an_exported_model_writes_what_its_run_writes(
    runs: dict[str, Path], method: str, asked: dict[str, Any], tmp_path: Path
) -> None:
    assert main(["export", str(runs[method]), "--to", str(tmp_path / "out")]) == 0
    from_run, from_export = sample_run(runs[method], **asked), sample_run(tmp_path / "out", **asked)
    assert from_export["items"] == from_run["items"]
    assert samples_shown(tmp_path / "out", from_export) == samples_shown(runs[method], from_run)


def test_a_tokenizer_is_named_where_a_model_has_none(runs: dict[str, Path], tmp_path: Path) -> None:
    """As published weights come, without a length of windows too: the longest that the network takes."""
    out, asked = tmp_path / "out", {"prompt": "beta", "count": 2, "overrides": ["sample.length=12"]}
    assert main(["export", str(runs["masked_diffusion"]), "--to", str(out)]) == 0
    (expected, _) = sample_run(out, **asked)["items"]
    (out / FILE).unlink()
    told = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(told | {"facts": told["facts"] | {"sequence_length": None}}))
    with pytest.raises(GenerativeError, match=r"holds no tokenizer[\s\S]*--tokenizer bytes"):
        sample_run(out, **asked)
    assert sample_run(out, tokenizer="bytes", **asked)["items"][0] == expected
    assert len(sample_run(out, tokenizer="bytes", count=1)["items"][0]["text"]) > 12
    with pytest.raises(GenerativeError, match="--tokenizer bytes with"):
        sample_run(runs["masked_diffusion"], tokenizer="bytes")


def test_a_model_is_fetched_from_the_hub_with_its_tokenizer(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote"
    assert main(["export", str(runs["autoregressive"]), "--to", str(remote)]) == 0
    calls = loopback_hub(monkeypatch, {"me/mine": remote}, tmp_path / "cache")
    monkeypatch.setattr("launch.importing.fetch", lambda repository, file, revision: remote / file)
    drawn = sample_run("hub:me/mine", prompt="alpha", count=2)
    assert drawn["items"] == sample_run(remote, prompt="alpha", count=2)["items"]
    assert [(name, "model.safetensors" in files, "README.md" in files) for name, _, files in calls] == [
        ("me/mine", True, False)
    ]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"infill": "a▁"}, "writes from left to right"),
        ({"label": [3]}, "told no classes"),
        ({"order": "confidence"}, "no such setting"),
        ({"workers": 2}, "one process"),
        ({"overrides": ["sample.length=0"]}, r"sample\.length"),
        ({"overrides": ["sample.length=33"]}, r"sample\.length=33 is longer than the model's context \(32\)"),
        ({"prompt": "beta", "tokenizer": "bytes"}, "the network knows"),
        ({"overrides": ["sample.lenght=3"]}, r"sample\.length"),
        ({"overrides": ["sample.weights=ema"]}, r"sample\.weights=ema[\s\S]*the weights that it holds: trained"),
        ({"out": Path("pictures")}, r"--out pictures[\s\S]*a model of text"),
    ],
)
def test_what_an_exported_model_cannot_is_told(
    runs: dict[str, Path], asked: dict[str, Any], told: str, tmp_path: Path
) -> None:
    assert main(["export", str(runs["autoregressive"]), "--to", str(tmp_path / "out")]) == 0
    with pytest.raises(GenerativeError, match=told):
        sample_run(tmp_path / "out", **asked)


def test_other_folders_are_not_sampled(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(GenerativeError, match=r"model of type 'llama'[\s\S]*--layout generative, or sample the run"):
        sample_run(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"sizes": 3}))
    with pytest.raises(GenerativeError, match="does not tell of which method"):
        sample_run(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"method": {"name": "sgmse"}}))
    with pytest.raises(GenerativeError, match=r"model of sgmse[\s\S]*generative enhance"):
        sample_run(tmp_path)


def test_the_code_in_the_readme_loads_a_masked_diffusion_model(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain transformers, exactly as README.md says, from the folder that the command before it makes."""
    pytest.importorskip("transformers")
    (code,) = [block for block in blocks(ROOT / "README.md", "python") if "mask_token_id" in block]
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(runs["masked_diffusion"]), "--to", "models/mdm", "--layout", "llama"]) == 0
    found: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), found)
    ids = found["ids"]
    assert (ids < found["texts"]).all()
    # What it loads computes what our network does. (Orders may differ: a canvas of masks alone is one great tie.)
    assert main(["export", str(runs["masked_diffusion"]), "--to", "models/ours"]) == 0
    model = load_exported("models/ours")
    ids[0, ::3] = found["mask_id"]
    with torch.no_grad():
        ours = model.networks["net"](ids)[..., : found["texts"]]
        theirs = found["model"](ids, attention_mask=found["everything"]).logits[..., : found["texts"]]
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    assert model.method.mask_id == found["mask_id"]
    card = Path("models/mdm/README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir("models")
    exec(compile(card, "the card", "exec"), found)
    assert (found["logits"][..., found["texts"] :] == -torch.inf).all()


@pytest.mark.parametrize(("method", "prefix"), [("masked_diffusion", "mdm"), ("autoregressive", "ar")])
def test_released_files_of_a_language_model(runs: dict[str, Path], tmp_path: Path, capsys, method, prefix) -> None:
    words = ["export", str(runs[method]), "--layout", "released", "--weights", "trained"]
    assert main([*words, "--to", str(tmp_path / "out")]) == 0
    assert f"{prefix}-0M-step_000004.safetensors" in capsys.readouterr().out
    (file,) = (tmp_path / "out").glob("*.safetensors")
    sizes = read_config(runs[method]).method.network
    state = from_smdm(load_file(file), sizes)
    kept = checkpoint_weights(open_checkpoint(runs[method]), "net")
    assert state.keys() == kept.keys()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in state.items())


@pytest.mark.parametrize("option", ["--dtype bf16", "--max-shard 1KB", "--network nope"])
def test_released_files_are_whole_and_as_trained(runs: dict[str, Path], tmp_path: Path, capsys, option: str) -> None:
    out = tmp_path / "out"
    words = ["export", str(runs["autoregressive"]), "--to", str(out), "--layout", "released", *option.split()]
    assert main(words) == 2
    assert f"{option} with --layout released" in capsys.readouterr().err
    assert not out.exists()


def test_released_files_are_replaced_and_nothing_else_is(runs: dict[str, Path], tmp_path: Path, capsys) -> None:
    """Files of the same names that another program wrote are no export of ours."""
    words = ["export", str(runs["autoregressive"]), "--layout", "released", "--weights"]
    out, theirs = tmp_path / "out", tmp_path / "theirs"
    assert main([*words, "trained", "--to", str(out)]) == 0
    (file,) = out.glob("*.safetensors")
    before = file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert main([*words, "ema", "--to", str(out)]) == 2
    assert main([*words, "ema", "--to", str(out), "--force"]) == 0
    assert file.read_bytes() != before
    theirs.mkdir()
    shutil.copy(file, theirs)
    (out / "notes.txt").write_text("mine")
    capsys.readouterr()
    for folder in (theirs, out):
        assert main([*words, "trained", "--to", str(folder), "--force"]) == 2
        assert "other things than an export" in capsys.readouterr().err
    assert (out / "notes.txt").read_text() == "mine"


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


def test_constants_that_the_released_code_does_not_have(runs: dict[str, Path], tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["masked_diffusion"], run)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("rope_base: 10000.0", "rope_base: 500000.0"))
    assert main(["export", str(run), "--layout", "released", "--to", str(tmp_path / "out")]) == 3
    assert "rope_base=500000.0, which the released code of SMDM does not have" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_llama_in_half_precision(runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["export", str(runs["autoregressive"]), "--to", str(out), "--layout", "llama", "--dtype", "bf16"]) == 0
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["torch_dtype"], config["vocab_size"]) == ("llama", "bfloat16", 64)
    assert all(tensor.dtype == torch.bfloat16 for tensor in load_file(out / "model.safetensors").values())
    assert "before the weights were rounded to bf16" in (out / "README.md").read_text()


def test_a_tokenizer_of_transformers_is_found_by_transformers(runs: dict[str, Path], tmp_path: Path) -> None:
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator(["alpha beta gamma " * 20], vocab_size=280, special_tokens=["</s>"])
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="</s>")
    wrapped.save_pretrained(tmp_path / "bpe")
    config = runs["autoregressive"].with_suffix(".yaml")
    command = ["train", str(config), f"run.dir={tmp_path / 'run'}", "train.steps=1", "evaluate.at_end=false"]
    tokenizer = ["data.tokenizer.name=huggingface", f"data.tokenizer.id={tmp_path / 'bpe'}"]
    assert main([*command, *tokenizer]) == 0
    out = tmp_path / "out"
    assert main(["export", str(tmp_path / "run"), "--to", str(out), "--layout", "llama"]) == 0
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    found = transformers.AutoTokenizer.from_pretrained(out)
    assert found("beta gamma")["input_ids"] == wrapped("beta gamma")["input_ids"]
    assert model.config.eos_token_id == found.eos_token_id == wrapped.eos_token_id
    code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert "AutoTokenizer" in code
    compile(code, "README.md", "exec")


def test_an_export_starts_a_run(runs: dict[str, Path], tmp_path: Path) -> None:
    run, out = runs["autoregressive"], tmp_path / "out"
    assert main(["export", str(run), "--to", str(out), "--max-shard", "2KB"]) == 0
    assert len(list(out.glob("*.safetensors"))) > 2
    command = ["train", str(run.with_suffix(".yaml")), f"run.dir={tmp_path / 'run'}", f"method.init_from={out}"]
    assert main([*command, "train.steps=1", "train.optimizer.lr=1e-30", "train.optimizer.weight_decay=0"]) == 0
    before, after = (checkpoint_weights(open_checkpoint(folder), "net") for folder in (run, tmp_path / "run"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


def test_weights_are_exported_without_the_data(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["autoregressive"], run)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace(str(run.parent), "").replace("/texts", "/gone"))
    assert main(["export", str(run), "--to", str(tmp_path / "out")]) == 0
    assert "the tokenizer is left out: " in capsys.readouterr().out
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert not (tmp_path / "out" / "generative_tokenizer.json").exists()
    assert "the tokenizer is left out: " in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--weights", "ema=0.9"], "one of trained, ema=0.5"),
        (["--network", "teacher"], "one of net"),
        (["--max-shard", "much"], "--max-shard much: not a size"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["export", str(runs["autoregressive"]), "--to", str(tmp_path / "out"), *words]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_is_passed_over_aloud(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["autoregressive"], run)
    newest = run / "checkpoints" / "step_000004" / "rank0000.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    assert main(["export", str(newest.parent), "--to", str(tmp_path / "out")]) == 3
    assert "damaged" in capsys.readouterr().err
    assert main(["export", str(run), "--to", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "passed over" in shown
    assert "weights of step 2" in shown


def test_no_data_set_is_fetched_for_its_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from launch import export
    from launch.schema import load_run_config

    monkeypatch.setattr(export, "open_text", lambda _: pytest.fail("it opened the data"))
    monkeypatch.setattr(export, "open_tokenizer", lambda config: SimpleNamespace(id=config.id, vocab_size=9))
    words = ["data.name=hub", "data.id=someone/texts", "data.tokenizer.name=huggingface", "data.tokenizer.id=x/y"]
    config = load_run_config("autoregressive/quickstart", words)
    for known in (9, 10):
        subject = SimpleNamespace(config=config, facts=DataFacts(vocab_size=known))
        found, missing = export.find_tokenizer(subject)  # type: ignore[arg-type]
        assert (found is not None) == (known == 9)
        assert ("9 tokens now, not 10" in missing) == (known == 10)
