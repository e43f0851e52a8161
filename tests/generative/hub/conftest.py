"""The golden text-to-image model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pipelines import golden_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a folder of diffusers."""
    return golden_folder(tmp_path_factory.mktemp("models") / "tiny")
