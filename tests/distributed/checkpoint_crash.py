"""Started by test_checkpoint_kill.py: forks processes that save checkpoints, kills them, and looks at what is left.

Forking from a process that has imported torch already makes hundreds of deaths affordable.
"""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from generative.training.checkpoint import Checkpoint, CheckpointStore, newest_in, shares
from generative.training.checkpoint.rotation import complete_steps

torch.set_num_threads(1)


def tensors(step: int, n: int) -> dict[str, torch.Tensor]:
    return {
        "weight": torch.full((n,), float(step)),
        "moment": torch.full((n // 3,), -float(step)),
        "n": torch.tensor(n),
    }


def problems(folder: Path, at_least: int) -> list[str]:
    """Broken promises: a folder that counts as complete but is not, or work that was acknowledged and is gone."""
    found = []
    for step in complete_steps(folder):
        checkpoint = Checkpoint(folder / f"step_{step:06d}")
        found += [f"step {step}: {damage}" for damage in checkpoint.damage()]
        wanted = tensors(step, int(checkpoint.tensor("n")))
        found += [f"step {step}: wrong {n}" for n in wanted if not torch.equal(checkpoint.tensor(n), wanted[n])]
    newest = newest_in(folder)
    if newest is None or newest.step < at_least:
        found.append(f"step {at_least} was saved, but the newest is {newest and newest.step}")
    return found


def save(folder: Path, attempt: str, step: int, world: int, n: int) -> None:
    stores = [CheckpointStore(folder, rank, world, attempt, keep_last=1) for rank in range(world)]
    for rank, store in enumerate(stores):
        store.save(step, shares(tensors(step, n), rank, world), {})
    for store in stores:
        store.wait()


def fork(job: Callable[[], None]) -> int:
    """Runs `job` in a child; it never comes back into this program."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            job()
            code = 0
        finally:
            os._exit(code)
    return pid


def die_at(moment: int, folder: Path) -> None:
    """This process ends, as if killed, before its `moment`-th change below `folder` (a write ends half-way)."""
    passed = 0

    def count() -> bool:
        nonlocal passed
        passed += 1
        return passed == moment

    def audit(event: str, args: tuple[object, ...]) -> None:
        watched = event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
        if watched and str(folder) in str(args[0]) and count():
            os._exit(9)

    write, fsync = os.write, os.fsync

    def half_write(descriptor: int, data: memoryview) -> int:
        if count():
            write(descriptor, data[: len(data) // 2])
            os._exit(9)
        return write(descriptor, data)

    def no_fsync(descriptor: int) -> None:
        if count():
            os._exit(9)
        fsync(descriptor)

    os.write, os.fsync = half_write, no_fsync
    sys.addaudithook(audit)


def every_moment(root: Path, world: int) -> dict[str, object]:
    """Saves step 2 over step 1 (which rotation then removes), dying at each file operation in turn."""
    base = root / "base"
    save(base, "first", 1, world, 3000)
    found, moment, code = [], 0, 9
    while code:
        moment += 1
        folder = root / "run"
        shutil.copytree(base, folder)

        def job(moment: int = moment, folder: Path = folder) -> None:
            die_at(moment, folder)
            save(folder, "second", 2, world, 3000)

        code = os.waitstatus_to_exitcode(os.waitpid(fork(job), 0)[1])
        found += [f"moment {moment}: {text}" for text in problems(folder, 1 if code else 2)]
        save(folder, "third", 3, world, 3000)
        found += [f"moment {moment}, afterwards: {text}" for text in problems(folder, 3)]
        found += [f"moment {moment}: {path.name} stayed" for path in folder.iterdir() if ".tmp-" in path.name]
        shutil.rmtree(folder)
    return {"deaths": moment - 1, "problems": found}


def save_forever(folder: Path, attempt: str, rank: int, world: int, said: int) -> None:
    store = CheckpointStore(folder, rank, world, attempt, keep_last=2)
    newest = store.newest()
    step = newest.step if newest else 0
    while True:
        step += 1
        store.save(step, shares(tensors(step, 300_000), rank, world), {})
        store.wait()
        if rank == 0:
            os.write(said, step.to_bytes(8, "little"))


def random_moments(root: Path, world: int, deaths: int) -> dict[str, object]:
    """kill -9 of all ranks at random moments, again and again in one run folder."""
    folder, found, dice, saved = root / "run", [], random.Random(world), 0
    for attempt in range(deaths):
        heard, said = os.pipe()
        ranks = [fork(partial(save_forever, folder, str(attempt), rank, world, said)) for rank in range(world)]
        os.close(said)
        if attempt % 5 == 0:  # these save something for sure, on a busy machine too
            saved = int.from_bytes(os.read(heard, 8), "little")
        time.sleep(dice.uniform(0.0, 0.12))
        for pid in ranks:
            os.kill(pid, signal.SIGKILL)
        for pid in ranks:
            os.waitpid(pid, 0)
        with open(heard, "rb") as pipe:
            told = pipe.read()
        saved = int.from_bytes(told[-8:], "little") if told else saved
        found += [f"death {attempt}: {text}" for text in problems(folder, saved)]
    return {"deaths": deaths, "saved": saved, "problems": found}
