"""A process that has imported what ranks import and forks them on demand: several seconds saved for each rank.

Reads one JSON line a rank from its standard input, {"script", "arguments", "environment", "output"}, and answers with
its process id; a line {"wait": pid} is answered with {"code"} once that process has ended, or {"code": null} while not.
Started by `tests.support.groups`; ends with its parent.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys

import accelerate.state  # noqa: F401
import deepspeed  # noqa: F401
import torch

import generative.training.trainer
import generative.training.validation  # noqa: F401


def become(script: str, arguments: str, environment: dict[str, str], output: str) -> None:
    """Run a script as if it had been started as a process of its own."""
    null, log = os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.update(environment)
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", "1")))
    sys.argv = [script, arguments]
    code = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        told = json.loads(line)
        if "wait" in told:
            pid, status = os.waitpid(told["wait"], os.WNOHANG)
            print(json.dumps({"code": os.waitstatus_to_exitcode(status) if pid else None}), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            become(**told)
        print(json.dumps({"pid": pid}), flush=True)


if __name__ == "__main__":
    main()
