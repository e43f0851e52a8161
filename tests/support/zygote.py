"""A process that has imported what ranks and runs import, and forks them on demand.

Reads one JSON line a process from its standard input, {"words", "environment", "folder", "output"}, and answers with
{"pid"}; a line {"wait": pid} is answered with {"code"} once that process has ended, or {"code": null} while not.
Started by `tests.support.forked`; ends with its parent.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence

from launch.imports import uncollected

with uncollected():
    import accelerate.state  # noqa: F401
    import deepspeed  # noqa: F401
    import torch
    import torch._inductor.compile_fx  # DeepSpeed's engines import it when they are made
    import torch.distributed.fsdp

    import launch.cli
    import launch.worker  # noqa: F401
    import tests.support.toys  # noqa: F401


def become(words: Sequence[str], environment: Mapping[str, str], folder: str, output: str) -> None:
    """Run a script or module as if `python WORDS` had been started."""
    null, log = os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY | os.O_TRUNC)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", "1")))
    code = 0
    try:
        _run(list(words))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(words: list[str]) -> None:
    if words[0] == "-m":
        # A process of its own would not have imported the module before, nor say so.
        warnings.filterwarnings("ignore", "'.*' found in sys.modules", RuntimeWarning)
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def _code(pid: int) -> int | None:
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # of a zygote before this one: its group has been killed
        return -signal.SIGKILL
    return os.waitstatus_to_exitcode(status) if ended else None


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # no process looks through (and so copies) what was there before it
    for line in sys.stdin:
        told = json.loads(line)
        if "wait" in told:
            print(json.dumps({"code": _code(told["wait"])}), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            become(**told)
        os.setpgid(pid, pid)
        print(json.dumps({"pid": pid}), flush=True)


if __name__ == "__main__":
    main()
