"""`generative doctor` against machines and installations that lack things."""

import json
import socket
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import torch
from typer.testing import CliRunner

from launch import doctor
from launch.cli import app

Usage = namedtuple("Usage", "total used free")


def found(folder: Path) -> dict[str, doctor.Finding]:
    return {one.what if one.what != "package" else one.found.split()[0]: one for one in doctor.examine(folder)}


def test_a_machine_that_has_what_the_tests_need_has_nothing_wrong(tmp_path):
    findings = found(tmp_path / "runs")
    assert not [one for one in findings.values() if one.state == "wrong"]
    assert all(one.remedy for one in findings.values() if one.state != "ok")
    assert findings["torch"].found.split()[1] == metadata.version("torch")
    # Every extra of the distribution, apart from collections of others, is known with its purpose.
    extras = set(metadata.metadata("generative").get_all("Provides-Extra")) - {"all", "dev"}
    assert {f"extra {name}" for name in extras} == {name for name in findings if name.startswith("extra ")}


def test_missing_and_unsuitable_packages_come_with_the_command_that_brings_them(tmp_path, monkeypatch):
    real = metadata.version

    def version(name: str) -> str:
        if name == "deepspeed":
            raise metadata.PackageNotFoundError(name)
        return "1.0" if name == "pydantic" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    findings = found(tmp_path)
    lacking, unsuitable = findings["extra deepspeed"], findings["pydantic"]
    assert lacking.state == "lacks"
    assert "deepspeed is missing" in lacking.found
    assert "zero3" in lacking.found
    assert lacking.remedy == "pip install 'generative[deepspeed]'"
    assert unsuitable.state == "wrong"
    assert "pydantic is 1.0" in unsuitable.found
    assert unsuitable.remedy.startswith("pip install 'pydantic>=")


def test_a_full_disk_is_told_where_runs_would_go(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(10, 9, 10**8))
    disk = found(tmp_path / "not" / "there")["disk"]
    assert disk.state == "wrong"
    assert "0.1 GB" in disk.found
    assert "run.dir" in disk.remedy
    assert not (tmp_path / "not").exists()


def test_a_driver_that_torch_was_not_built_for(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "without CUDA" in found(tmp_path)["GPU"].found
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert "sees none" in found(tmp_path)["GPU"].found


def test_a_port_in_use_is_seen_and_no_token_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(doctor, "RAY_PORTS", {server.getsockname()[1]: "head"})
        text = json.dumps([one.to_json() for one in doctor.examine(tmp_path)])
    assert "head: somebody answers" in text
    assert "a token is set" in text
    assert "hf_secret" not in text


def test_the_command_tells_all_and_fails_only_where_something_is_wrong(tmp_path, monkeypatch):
    done = CliRunner().invoke(app, ["doctor", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "0 wrong" in done.output.splitlines()[-1]
    monkeypatch.setattr(doctor, "RUN_BYTES", 1e30)
    done = CliRunner().invoke(app, ["doctor", str(tmp_path), "--json"])
    assert done.exit_code == 3
    assert {"state": "wrong", "what": "disk"}.items() <= json.loads(done.output)[0].items()
