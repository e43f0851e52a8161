from __future__ import annotations

import contextlib
import gc
import subprocess
import sys

import pytest

from launch.imports import uncollected
from tests.support.fork_server import answer


def collected() -> tuple[list[bool], int, int]:
    """Whether garbage is looked for before, inside and afterwards; what is set aside after nothing, and an import."""
    gc.unfreeze()
    enabled = [gc.isenabled()]
    with uncollected(), uncollected():
        enabled.append(gc.isenabled())
    nothing = gc.get_freeze_count()
    with contextlib.suppress(ZeroDivisionError), uncollected():
        import this  # noqa: F401

        raise ZeroDivisionError
    return [*enabled, gc.isenabled()], nothing, gc.get_freeze_count()


def test_garbage_is_not_looked_for_while_modules_are_imported():
    enabled, nothing, something = answer(collected)
    assert enabled == [True, False, True]
    assert nothing == 0 < something


DRIVER = "from launch import ray_driver, ray_group, ray_seat, ray_slim; ray_slim.slim()"
CONFIGURATION = "from launch.schema import load_run_config; [load_run_config(name) for name in {names}]"
NAMES = [
    f"{method}/quickstart" for method in ("masked_diffusion", "autoregressive", "edm", "kl_vae", "mee_gan", "sgmse")
]


@pytest.mark.parametrize("what", [DRIVER, CONFIGURATION.format(names=NAMES)], ids=["driver", "configurations"])
def test_what_moves_no_tensor_does_not_wait_for_torch(what):
    """The process beside Ray's cluster, and commands that read configurations: two seconds of each start."""
    program = f"import sys; {what}; sys.exit('torch is imported' if 'torch' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
