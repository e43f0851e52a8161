"""What this machine and installation have and lack: each finding with its remedy, nothing changed or fetched."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from launch.environment import cores, installed
from launch.formats import gigabytes

State = Literal["ok", "lacks", "wrong"]
"""lacks: something optional is not there; wrong: what is there will not work."""

PURPOSES = {
    "ray": "several workers, clusters, `submit`",
    "deepspeed": "parallel.strategy=zero1, zero2, zero3",
    "hub": "checkpoints, tokenizers and data sets of the Hugging Face hub",
    "erase": "diffusers pipelines and LoRA: `erase`, `debias`, Stable Diffusion priors and students",
    "detectors": "published judges of erasures",
    "image": "digits, image folders, PRD",
    "sound": "recordings in wav and flac, STOI",
    "speech": "PESQ (needs a C compiler)",
    "rooms": "simulated rooms (data.rooms)",
    "lm-eval": "tasks of the lm-eval harness (`evaluate --suite`)",
    "lora": "method.lora of language models",
    "scaling": "fits and plots of scaling laws",
    "tensorboard": "track.tensorboard",
    "wandb": "track.wandb",
    "prometheus": "track.prometheus",
}
"""What an extra of the distribution is for."""

RUN_BYTES, SHARED_BYTES, OPEN_FILES = 2e9, 1e9, 1024
"""Least free disk, least shared memory for Ray's objects, least limit of open files."""

RAY_PORTS = {6379: "head of a cluster", 8265: "dashboard and jobs"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        state: how it stands.
        what: that was looked at.
        found: what is there.
        remedy: what to do; empty where all is well.
    """

    state: State
    what: str
    found: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        """As in `generative doctor --json`."""
        return asdict(self)


def examine(folder: Path) -> Iterator[Finding]:
    """All findings; `folder` is where runs go (it need not exist)."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (_packages, _extras, _devices, _machine, _compiler, _network)
    yield from _disk(folder)
    for check in checks:
        yield from check()


def _requirements() -> Mapping[str, list[Any]]:
    """Requirements of this distribution by extra; those that are always needed under the empty name."""
    from packaging.requirements import Requirement

    found: dict[str, list[Any]] = {}
    for line in metadata.requires("generative") or []:
        requirement = Requirement(line)
        if requirement.name == "generative":
            continue
        extras = [name for name in PURPOSES if requirement.marker and requirement.marker.evaluate({"extra": name})]
        always = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        for name in [""] if always else extras:
            found.setdefault(name, []).append(requirement)
    return found


def _unmet(requirement: Any) -> str | None:
    """What is amiss with a requirement; None where it is met."""
    version = installed(requirement.name)
    if version is None:
        return f"{requirement.name} is missing"
    return None if requirement.specifier.contains(version, prereleases=True) else f"{requirement.name} is {version}"


def _packages() -> Iterator[Finding]:
    for requirement in _requirements().get("", []):
        bounds = str(requirement.specifier) or "any version"
        if (amiss := _unmet(requirement)) is not None:
            yield Finding("wrong", "package", f"{amiss}; needed: {bounds}", f"pip install '{requirement}'")
        else:
            yield Finding("ok", "package", f"{requirement.name} {installed(requirement.name)}")


def _extras() -> Iterator[Finding]:
    found = _requirements()
    for name, purpose in PURPOSES.items():
        amiss = [told for one in found.get(name, []) if (told := _unmet(one)) is not None]
        if amiss:
            remedy = f"pip install 'generative[{name}]'"
            yield Finding("lacks", f"extra {name}", f"{purpose}: {', '.join(amiss)}", remedy)
        else:
            yield Finding("ok", f"extra {name}", purpose)


def _devices() -> Iterator[Finding]:
    import torch

    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    driver = shutil.which("nvidia-smi") is not None
    if not seen:
        if driver and torch.version.cuda is None:
            remedy = "install a CUDA build of torch: see https://pytorch.org/get-started/locally"
            yield Finding(
                "wrong", "GPU", f"there is a driver, but torch {torch.__version__} is built without CUDA", remedy
            )
        elif driver:
            remedy = "compare `nvidia-smi` with torch.version.cuda; a driver older than it does not serve it"
            yield Finding("wrong", "GPU", f"torch {torch.__version__} sees none, though there is a driver", remedy)
        else:
            yield Finding("ok", "GPU", "none: everything runs on the CPU")
    for number in range(seen):
        device = torch.cuda.get_device_properties(number)
        half = "bf16" if device.major >= 8 else "no bf16: train.precision=fp32"
        yield Finding("ok", f"GPU {number}", f"{device.name}, {gigabytes(device.total_memory)} GB, {half}")


def _machine() -> Iterator[Finding]:
    import psutil

    memory, limit = psutil.virtual_memory().total, _memory_limit()
    text = f"{cores()} cores, {gigabytes(memory)} GB"
    if limit is not None and limit < memory:
        text += f", of which this group of processes may have {gigabytes(limit)} GB"
    yield Finding("ok", "machine", text)
    yield from _open_files()
    shared = Path("/dev/shm")
    if shared.is_dir() and (free := shutil.disk_usage(shared).free) < SHARED_BYTES:
        yield Finding(
            "lacks", "shared memory", f"{gigabytes(free)} GB in {shared}: Ray's objects go to the disk",
            "start the container with --shm-size=2g or more",
        )  # fmt: skip


def _memory_limit() -> int | None:
    """Of the control group that this process is in, where one is set."""
    text = _read(Path("/sys/fs/cgroup/memory.max")) or _read(Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _open_files() -> Iterator[Finding]:
    try:
        import resource
    except ImportError:
        return
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 < limit < OPEN_FILES:
        yield Finding("wrong", "open files", f"at most {limit}: Ray needs more", "run `ulimit -n 65536` before")


def _compiler() -> Iterator[Finding]:
    found = next((name for name in (os.environ.get("CXX"), "g++", "clang++") if name and shutil.which(name)), None)
    if found is None:
        remedy = "install g++ or clang++ where train.compile=true, or PESQ, is wanted"
        yield Finding("lacks", "C++ compiler", "none: no torch.compile, no packages from source", remedy)
    else:
        yield Finding("ok", "C++ compiler", found)


def _disk(folder: Path) -> Iterator[Finding]:
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(there).free
    if not os.access(there, os.W_OK):
        yield Finding("wrong", "disk", f"{there} cannot be written", "go to a folder of yours, or set run.dir")
    elif free < RUN_BYTES:
        remedy = "make room, or set run.dir to another disk"
        yield Finding("wrong", "disk", f"{gigabytes(free)} GB free for {folder}", remedy)
    else:
        yield Finding("ok", "disk", f"{gigabytes(free)} GB free for {folder}")


def _network() -> Iterator[Finding]:
    try:
        with socket.create_server(("127.0.0.1", 0)):
            pass
    except OSError as error:
        yield Finding("wrong", "ports", f"no port of 127.0.0.1 can be bound ({error})", "allow loopback connections")
    for port, purpose in RAY_PORTS.items():
        with socket.socket() as probe:
            probe.settimeout(1.0)
            taken = probe.connect_ex(("127.0.0.1", port)) == 0
        yield Finding("ok", f"port {port}", f"{purpose}: {'somebody answers' if taken else 'free'}")
    offline = os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("", "0", "false", "no")
    token = "a token is set" if os.environ.get("HF_TOKEN") else "no token is set (HF_TOKEN)"
    yield Finding("ok", "hub", f"{'offline (HF_HUB_OFFLINE)' if offline else 'reached when asked for'}; {token}")
