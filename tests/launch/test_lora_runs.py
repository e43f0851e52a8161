"""Fine-tuning by low-rank changes: runs of the command line, from the base to what others load."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from generative.nets.lora import BASE, DOWN, UP
from generative.training.checkpoint import open_checkpoint
from generative.training.networks import checkpoint_weights
from launch.cli import main
from tests.end_to_end.runs import write_text

peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
NETWORK = {"layers": 2, "heads": 4, "kv_groups": 2, "width": 16, "ff_width": 24, "max_length": 32}
LORA = "method.lora={rank: 2, alpha: 3.0}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short autoregressive run; its configuration lies beside it."""
    folder = tmp_path_factory.mktemp("lora")
    (folder / "texts").mkdir()
    write_text(folder / "texts")
    data = {"name": "files", "path": str(folder / "texts"), "cache": str(folder / "cache"), "sequence_length": 32}
    config = {
        "data": data,
        "method": {"name": "autoregressive", "network": NETWORK},
        "train": {"steps": 4, "batch_size": 4, "optimizer": {"lr": 0.01}, "checkpoint": {"every_steps": 2}},
        "evaluate": {"at_end": False},
        "sample": {"at_end": False},
        "launch": {"backend": "local"},
    }
    (folder / "base.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", str(folder / "base.yaml"), f"run.dir={folder / 'base'}"]) == 0
    return folder / "base"


def tuned(base: Path, folder: Path, *words: str) -> dict[str, torch.Tensor]:
    command = ["train", str(base.with_suffix(".yaml")), f"run.dir={folder}", f"method.init_from={base}", LORA, *words]
    assert main(command) == 0
    return dict(checkpoint_weights(open_checkpoint(folder), "net"))


def test_a_run_changes_its_changes_alone_and_resumes_exactly(base: Path, tmp_path: Path) -> None:
    whole = tuned(base, tmp_path / "whole", "method.ema=[0.5]")
    before = checkpoint_weights(open_checkpoint(base), "net")
    for name, tensor in before.items():
        stem = name.removesuffix(".weight")
        assert torch.equal(whole[stem + BASE if stem + BASE in whole else name], tensor), name
    assert all(tensor.any() for name, tensor in whole.items() if name.endswith(UP))
    # As if it had been killed after its first checkpoint.
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step_000004")
    (tmp_path / "cut" / "outcome.json").unlink()
    again = tuned(base, tmp_path / "cut", "method.ema=[0.5]")
    assert again.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in again.items())
    averages = [name for name in open_checkpoint(tmp_path / "cut").names() if name.startswith("ema/")]
    assert averages
    assert all(name.endswith((DOWN, UP)) for name in averages)


def test_merged_weights_and_the_adapter_are_the_same_model(base: Path, tmp_path: Path) -> None:
    tuned(base, tmp_path / "run")
    for run, layout, out in (("base", "llama", "base"), ("run", "llama", "merged"), ("run", "peft", "adapter")):
        source = base if run == "base" else tmp_path / run
        assert main(["export", str(source), "--to", str(tmp_path / out), "--layout", layout]) == 0
    first, merged = (transformers.LlamaForCausalLM.from_pretrained(tmp_path / n).eval() for n in ("base", "merged"))
    ids = torch.arange(40).view(2, 20)
    with torch.no_grad():
        plain, wanted = first(ids).logits.clone(), merged(ids).logits
        found = peft.PeftModel.from_pretrained(first, tmp_path / "adapter").eval()(ids).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, plain, atol=1e-4)
    assert "PeftModel" in (tmp_path / "adapter" / "README.md").read_text()


def test_an_adapter_is_replaced_by_force_alone(base: Path, tmp_path: Path, capsys) -> None:
    tuned(base, tmp_path / "run", "train.steps=1")
    out = tmp_path / "out"
    words = ["export", str(tmp_path / "run"), "--to", str(out), "--layout", "peft"]
    assert main(words) == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in out.iterdir()}
    assert modes["adapter_model.safetensors"] == modes["adapter_config.json"]
    assert main([*words, "--max-shard", "1KB", "--force"]) == 2
    assert main([*words, "--dtype", "bf16"]) == 2
    assert main([*words, "--dtype", "bf16", "--force"]) == 0
    assert {t.dtype for t in load_file(out / "adapter_model.safetensors").values()} == {torch.bfloat16}
    (out / "optimizer.pt").write_bytes(b"of another program's training")
    assert main([*words, "--force"]) == 2
    assert "other things than an export" in capsys.readouterr().err


def test_a_merged_export_starts_a_plain_run(base: Path, tmp_path: Path) -> None:
    tuned(base, tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--to", str(tmp_path / "out")]) == 0
    command = ["train", str(base.with_suffix(".yaml")), f"run.dir={tmp_path / 'next'}", "train.steps=1"]
    assert main([*command, f"method.init_from={tmp_path / 'out'}"]) == 0


def test_masked_diffusion_starts_from_it_with_a_mask_token_and_a_shift(base: Path, tmp_path: Path) -> None:
    words = ["method.name=masked_diffusion", "method.shift=true", "train.steps=2"]
    lora = "method.lora={rank: 2, whole: [embedding.weight]}"
    found = tuned(base, tmp_path / "run", *words, lora)
    before = checkpoint_weights(open_checkpoint(base), "net")
    assert torch.equal(found["head.weight"], before["head.weight"])
    assert not torch.equal(found["embedding.weight"][:-1], before["embedding.weight"])


def test_an_adapter_of_a_run_without_changes_is_refused(base: Path, tmp_path: Path, capsys) -> None:
    assert main(["export", str(base), "--to", str(tmp_path / "out"), "--layout", "peft"]) == 2
    assert "method.lora" in capsys.readouterr().err
