"""Mistakes as users make them: a clear error with a remedy, before work starts, and nothing half-written."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from launch.cli import main
from tests.end_to_end.runs import CONFIG, write_text

LOCAL = ["launch.backend=local", "launch.workers=1"]


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    write_text(folder)
    return folder


@pytest.fixture
def train(tmp_path, texts, capsys):
    """Runs `generative train` in this process; gives exit code and what stood on stderr."""

    def train(*overrides, run_dir=None, local=True):
        base = [f"run.dir={run_dir or tmp_path / 'run'}", f"data.path={texts}", f"data.cache={tmp_path / 'cache'}"]
        code = main(["train", str(CONFIG), *base, *(LOCAL if local else []), *overrides])
        return code, capsys.readouterr().err

    return train


def assert_nothing_written(folder):
    assert not list(folder.glob("run/checkpoints/*"))
    assert not list(folder.glob("run/metrics.jsonl"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.optimzer.lr=1", ["train.optimzer", "unknown key (command line)", "Did you mean train.optimizer"]),
        ("train.steps=many", ["train.steps", '"many"', "a whole number"]),
        ("train.batch_size=0", ["train.batch_size", "0", "greater than 0"]),
        ("train.batch_size=-4", ["train.batch_size", "-4"]),
        ("train.precision=fp8", ["train.precision", '"fp8"', "fp32"]),
        ("data.path=/no/such/place", ["/no/such/place"]),
        ("data.sequence_length=64", ["data.sequence_length=64", "max_length=32"]),
        ("data.tokenizer.name=wordpiece", ["wordpiece"]),
        ("method.name=masked_difusion", ["masked_difusion"]),
        ("train.flops=1e6", ["train.steps", "train.flops"]),
        ("launch.workers=0", ["launch.workers", "0"]),
        ("method.network.heads=3", ["width 64", "heads"]),
    ],
)
def test_configuration_mistakes(train, tmp_path, override, words):
    code, error = train(override)
    assert code == 2, error
    for word in words:
        assert word in error, error
    assert "Traceback" not in error
    assert_nothing_written(tmp_path)


def test_no_such_configuration(capsys):
    assert main(["train", "masked_diffusion/quikstart"]) == 2
    assert "Did you mean masked_diffusion/quickstart?" in capsys.readouterr().err


def test_empty_corpus(train, tmp_path, texts):
    for file in texts.iterdir():
        file.write_text("")
    code, error = train()
    assert code == 2
    assert "empty" in error
    assert_nothing_written(tmp_path)


def test_corpus_shorter_than_a_window(train, tmp_path, texts):
    for file in texts.iterdir():
        file.write_text("ab")
    code, error = train()
    assert code == 2
    assert "window" in error or "tokens" in error
    assert_nothing_written(tmp_path)


def test_unknown_tokenizer_folder(train, tmp_path):
    code, error = train("data.tokenizer.name=huggingface", f"data.tokenizer.id={tmp_path / 'no-tokenizer'}")
    assert code == 2
    assert "no-tokenizer" in error
    assert_nothing_written(tmp_path)


def test_run_folder_in_the_way_of_a_file(train, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, error = train(run_dir=tmp_path / "file")
    assert code == 3
    assert str(tmp_path / "file") in error
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_run_folder(train, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    code, error = train(run_dir=tmp_path / "locked" / "run")
    assert code == 3
    assert "locked" in error


def test_run_folder_on_a_read_only_file_system(train, tmp_path):
    mount = tmp_path / "readonly"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(mount)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system")
    try:
        code, error = train(run_dir=mount / "run")
        assert code == 3
        assert "readonly" in error
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)


def test_another_configuration_in_the_run_folder(train, tmp_path):
    assert train("train.steps=4", "evaluate.at_end=false", "sample.at_end=false")[0] == 0
    code, error = train("train.steps=4", "train.optimizer.lr=0.5")
    assert code == 3
    for word in ("train.optimizer.lr", "0.5", "run.dir"):
        assert word in error


def test_a_start_that_failed_does_not_claim_the_folder(train):
    assert train("data.path=/no/such/place")[0] == 2
    assert train("train.steps=4", "evaluate.at_end=false", "sample.at_end=false")[0] == 0


@pytest.mark.distributed
def test_more_workers_than_cores_are_refused_at_once(train, tmp_path):
    started = time.monotonic()
    code, error = train("launch.backend=ray", "launch.workers=5000", "train.batch_size=5000", local=False)
    assert code == 3, error
    assert "5000" in error
    assert "launch.workers" in error
    assert time.monotonic() - started < 60
    assert_nothing_written(tmp_path)


def test_sampling_and_evaluating_what_is_not_a_run(tmp_path, capsys):
    for command in ("sample", "evaluate"):
        assert main([command, str(tmp_path)]) in (2, 3)
        assert "run folder" in capsys.readouterr().err


def test_prompts_and_blanks_that_do_not_fit(train, tmp_path, capsys):
    assert train("train.steps=4", "evaluate.at_end=false", "sample.at_end=false")[0] == 0
    run = str(tmp_path / "run")
    assert main(["sample", run, "--prompt", "x" * 40]) == 2
    assert "40" in capsys.readouterr().err
    assert main(["sample", run, "--infill", "nothing to fill"]) == 2
    assert "▁" in capsys.readouterr().err
    assert main(["sample", run, "--infill", "a▁▁c", "--steps", "2"]) == 0


def test_divergence_stops_with_a_diagnosis_that_can_be_replayed(train, tmp_path, capsys):
    wild = ("train.optimizer.lr=1e30", "train.optimizer.clip_norm=null", "train.schedule.warmup_steps=0")
    code, error = train(*wild)
    assert code == 4
    for words in ("at step", "samples", "seed 0", "to fix", "To replay:"):
        assert words in error, error
    again, same = train(*wild)
    assert again == 4
    assert same.splitlines()[0] == error.splitlines()[0]
    code, error = train(*wild, "train.anomaly.policy=skip", "train.anomaly.limit=2")
    assert code == 4  # every further step is as bad
    assert same.split("update")[0] != error.split("update")[0]
