from __future__ import annotations

import pytest

from evaluation.benchmarks import masked_generation


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models that write texts have one layer, and fewer timings: what is told of them is the same."""
    load = masked_generation.load_run
    few = ["method.network.layers=1", "train.batch_size=2"]
    monkeypatch.setattr(masked_generation, "load_run", lambda name, changes: load(name, [*changes, *few]))
    monkeypatch.setattr(masked_generation, "PAIRS", 2)
