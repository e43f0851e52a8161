from __future__ import annotations

from typing import Any

import pytest
from torch.utils.data import DataLoader

from tests.support.fork_server import context


@pytest.fixture
def quick_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of loaders come from the fork server; real spawned ones are in test_loader.py and test_text.py."""

    def loader(*given: Any, **options: Any) -> DataLoader[Any]:
        return DataLoader(*given, **options | {"multiprocessing_context": context()})

    monkeypatch.setattr("generative.data.loader.DataLoader", loader)
