"""A hub that is a folder on this machine: `snapshot_download` copies what the patterns ask for."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def loopback_hub(
    monkeypatch: pytest.MonkeyPatch, repositories: Mapping[str, Path], cache: Path
) -> list[tuple[str, str | None, list[str]]]:
    """Serve repositories from folders; the calls so far: name, revision, and the files that they fetched."""
    from huggingface_hub.utils import filter_repo_objects

    calls: list[tuple[str, str | None, list[str]]] = []

    def download(
        name: str,
        revision: str | None = None,
        allow_patterns: Sequence[str] | None = None,
        ignore_patterns: Sequence[str] | None = None,
    ) -> str:
        if name not in repositories:
            raise OSError(f"404: no repository {name}")
        remote, target = repositories[name], cache / name / "snapshots" / COMMIT
        files = [str(path.relative_to(remote)) for path in sorted(remote.rglob("*")) if path.is_file()]
        some = list(
            filter_repo_objects(
                files, allow_patterns=list(allow_patterns or ["*"]), ignore_patterns=list(ignore_patterns or [])
            )
        )
        for file in some:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(remote / file, target / file)
        calls.append((name, revision, some))
        return str(target)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return calls
