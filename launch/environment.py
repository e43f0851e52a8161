"""What a run ran on and with: versions, git revision, machine, command."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "generative",
    "torch",
    "numpy",
    "accelerate",
    "deepspeed",
    "ray",
    "safetensors",
    "transformers",
    "datasets",
    "pydantic",
)


def versions() -> dict[str, str]:
    """Installed versions, read from metadata without importing anything."""
    found = {name: version for name in PACKAGES if (version := installed(name)) is not None}
    return {"python": platform.python_version(), **found}


def installed(name: str) -> str | None:
    """Version of a distribution; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def git_state(folder: Path) -> dict[str, Any] | None:
    """{revision, dirty} of the git work tree whose top is `folder`; None where it is none."""
    if not (folder / ".git").exists() or shutil.which("git") is None:
        return None
    revision = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"revision": revision, "dirty": bool(changes)} if revision else None


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """Everything for environment.json and for the results of a benchmark."""
    import psutil

    import generative

    return {
        "time": time.time(),
        "versions": versions(),
        "git": git_state(Path(generative.__file__).resolve().parents[1]),
        "host": socket.gethostname(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "folder": os.getcwd(),
    }


def gpus() -> list[str]:
    """Names of the GPUs that torch sees. Imports torch."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.get_device_name(number) for number in range(count)]


def measured_on() -> dict[str, Any]:
    """`describe` with the GPUs: what a measurement of this process ran on."""
    return {**describe(), "gpus": gpus()}


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Versions and revisions that differ between two environments: why numbers may not be bit-identical."""
    was, now = old.get("versions", {}), new.get("versions", {})
    found = [f"{name} {was[name]} -> {now[name]}" for name in was if name in now and was[name] != now[name]]
    before, after = old.get("git") or {}, new.get("git") or {}
    if before and after and before.get("revision") != after.get("revision"):
        found.append(f"git {before.get('revision', '')[:10]} -> {after.get('revision', '')[:10]}")
    return found
