"""Processes from multiprocessing's fork server, which has imported what they need: spawned ones take seconds each."""

from __future__ import annotations

import functools
import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

PRELOADED = ["torch", "pytest", "hypothesis", "psutil", "generative.data.loader", "generative.data.prepare"]


@functools.cache
def context() -> ForkServerContext:
    """One server for all tests of this process, with which it ends; what a process is given is pickled."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    return found


def answer(job: Callable[..., Any], *arguments: object, timeout: float = 100.0) -> Any:
    """What `job` returns in a process of its own, which has no threads and may fork; raises EOFError where it fails."""
    heard, said = context().Pipe(duplex=False)
    process = context().Process(target=_tell, args=(said, job, *arguments))
    process.start()
    said.close()
    try:
        assert heard.poll(timeout), f"no answer in {timeout} s"
        return heard.recv()
    finally:
        process.kill()
        process.join()


def modules_after(program: str, *words: str) -> set[str]:
    """Names of all modules in a process that has run a program's text, with `words` as its arguments.

    Those that the server has preloaded are among them, whoever imported them.
    """
    return answer(_run, program, words)


def _tell(said: Connection, job: Callable[..., Any], *arguments: object) -> None:
    said.send(job(*arguments))


def _run(program: str, words: tuple[str, ...]) -> set[str]:
    sys.argv[1:] = words
    exec(program, {})
    return set(sys.modules)
