from __future__ import annotations

import copy
import pathlib

import pytest
import yaml

from tests.end_to_end.runs import write_text

TINY = {
    "families": {"ar": {"config": "RUN"}},
    "budgets": [4e7, 8e7],
    "sizes": [{"layers": 1, "heads": 1, "width": 8}, {"layers": 1, "heads": 2, "width": 16}],
    "min_steps": 4,
    "tolerance": 0.2,
    "launch": {"backend": "local"},
}


@pytest.fixture
def campaign_file(tmp_path):
    """Writes a campaign's configuration that trains in seconds; keyword arguments win over its keys."""
    texts = tmp_path / "texts"
    texts.mkdir()
    write_text(texts)
    run = {
        "data": {"name": "files", "path": str(texts), "sequence_length": 16, "cache": str(tmp_path / "cache")},
        "method": {"name": "autoregressive", "network": {"max_length": 16, "padding_multiple": 1}},
        "train": {
            "steps": 1,
            "batch_size": 4,
            "optimizer": {"lr": 3e-3},
            "schedule": {"name": "cosine", "warmup_steps": 2},
            "checkpoint": {"every_steps": 5, "keep_last": 1, "keep_best": False},
        },
        "evaluate": {"windows": 8, "draws": 4},
    }
    base = tmp_path / "run.yaml"
    base.write_text(yaml.safe_dump(run))

    def write(name: str = "toy.yaml", **changes) -> str:
        values = copy.deepcopy({**TINY, "dir": str(tmp_path / "campaign"), **changes})
        for family in values["families"].values():
            family["config"] = family["config"].replace("RUN", str(base))
        path = pathlib.Path(tmp_path) / name
        path.write_text(yaml.safe_dump(values))
        return str(path)

    return write
