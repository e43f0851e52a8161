import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch


@pytest.fixture(autouse=True)
def _few_threads():
    """Small tensors are fastest on one thread, and bits depend on the number of threads."""
    torch.set_num_threads(1)
