from __future__ import annotations

import contextlib
import gc

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
