import gc
import os
import random
import shutil
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Before numpy is imported: where other tests keep the cores busy, the threads of OpenBLAS wait for one another at full
# speed, and the eigenvalues of a 64 x 64 matrix take 60 times the CPU time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, settings

# A shell's background jobs ignore Ctrl-C, and would hand that on to the runs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Run folders, caches and checkpoints are flushed to the disk thousands of times; a file system in memory is quick.
# Together they stay below 1 GB, and are removed at the end where all tests have passed.
IN_MEMORY, ROOM = Path("/dev/shm"), 4 << 30


def in_memory() -> bool:
    """Whether there is such a file system, and room to spare."""
    writable = IN_MEMORY.is_dir() and os.access(IN_MEMORY, os.W_OK)
    return writable and min(shutil.disk_usage(IN_MEMORY).free, psutil.virtual_memory().available // 2) >= ROOM


if "PYTEST_DEBUG_TEMPROOT" not in os.environ and in_memory():
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(IN_MEMORY)

# No timing: how long an example takes is the machine's affair. Where a failure would stop others (CI), the examples are
# the same each time; at a desk they are new ones, so that new cases are found.
settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("untimed")


gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of distributed tests that may take longest go first: of two streams none is left with one of minutes."""
    limits: dict[Path, float] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        if limit is not None and item.get_closest_marker("distributed") is not None:
            limits[item.path] = max(limits.get(item.path, 0), limit.args[0])
    items.sort(key=lambda item: -limits.get(item.path, 0))


def pytest_collection_finish() -> None:
    """What has been imported stays: the collector of garbage need not look through it again and again, nor so often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 10)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _memory_is_given_back(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yield
    if not request.session.testsfailed:
        shutil.rmtree(tmp_path_factory.getbasetemp(), ignore_errors=True)


# `torch.manual_seed` is for all devices, and where there are none notes the stack of calls for them: 1 ms, and this is
# done four times a test.
SEED_TORCH = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed


def seed(name: str) -> None:
    """Global generators in a state that depends on `name` only: not on the tests before, nor on the process."""
    number = zlib.crc32(name.encode())
    random.seed(number)
    np.random.seed(number)
    SEED_TORCH(number)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest) -> None:
    seed(f"{request.node.nodeid} {fixturedef.argname} {getattr(request, 'param', '')}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    seed(item.nodeid)


@pytest.fixture(autouse=True)
def _few_threads():
    """Small tensors are fastest on one thread, and bits depend on the number of threads."""
    torch.set_num_threads(1)
