"""Programs that check files, found on PATH or beside the interpreter (where pip puts them)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def check(program: str, *words: str | Path) -> None:
    """Fails with what the program says; skips where it is not installed."""
    found = shutil.which(program, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip(f"{program} is not installed (it comes with the extra `dev`)")
    done = subprocess.run([found, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
