"""`generative demo-all`: the quickstart of each method, one after the other, and a page over their reports.

Each command runs in a process of its own, as it would be given by hand, and goes on where it was.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from evaluation.quantities import duration
from generative.errors import ConfigError, suggestion
from launch.console import Console
from launch.gallery import make_gallery
from launch.stopping import INTERRUPTED, SIGNALS

PROGRAM = (sys.executable, "-m", "launch.cli")
RUNS = "runs"
MODEL, ERASED, RESTORED = f"{RUNS}/text_to_image/model", f"{RUNS}/rece/quickstart", f"{RUNS}/stsl/quickstart"


@dataclass(frozen=True)
class Command:
    """One command of a demonstration.

    Args:
        words: after `generative`.
        leaves: a file that is there when it is done, for commands that would not start again; "" for all others.
    """

    words: tuple[str, ...]
    leaves: str = ""


def _train(name: str) -> Command:
    return Command(("train", name))


DEMOS: dict[str, tuple[Command, ...]] = {
    "masked_diffusion": (_train("masked_diffusion/quickstart"),),
    "autoregressive": (_train("autoregressive/quickstart"),),
    "mee_gan": (_train("mee_gan/quickstart"),),
    "edm": (_train("edm/quickstart"),),
    "f_distill": (_train("f_distill/quickstart"),),  # trains its teacher first
    "kl_vae": (_train("kl_vae/quickstart"),),
    "stsl": (
        _train("edm/restore"),
        Command(("restore", f"{RUNS}/edm/restore", "held_out", RESTORED, "--operator", "inpaint:missing=0.75")),
    ),
    "rece": (
        _train("text_to_image/quickstart"),
        Command(
            ("export", f"{RUNS}/text_to_image/quickstart", "--to", MODEL, "--weights", "ema", "--layout", "diffusers"),
            f"{MODEL}/model_index.json",
        ),
        Command(
            ("erase", MODEL, "--concept", "seven", "--preset", "small", "--images", "8", "--out", ERASED),
            f"{ERASED}/report.html",
        ),
    ),
    "sgmse": (_train("sgmse/quickstart"),),
}
"""By the method that is shown: commands of which each needs those before it."""


def run_demos(overrides: Sequence[str], only: Sequence[str], console: Console | None = None) -> int:
    """Run them all, tell the time of each, and write the page over all runs; the exit code.

    Args:
        overrides: `a.b=c` of each training.
        only: names of demonstrations; empty: all.
        console: where to tell about it.

    Returns:
        0; 75 after Ctrl-C, which ends all; 1 where a command failed, whose followers are left out.

    Raises:
        ConfigError: there is no demonstration of a name.
    """
    console = console or Console()
    ended: dict[str, tuple[str, float]] = {}
    for name in _chosen(only):
        began = time.monotonic()
        code = run_demo(name, overrides, console)
        ended[name] = "done" if not code else f"exit code {code}", time.monotonic() - began
        console.line("demo", f"{name}: {ended[name][0]} in {duration(ended[name][1])}")
        if code == INTERRUPTED:
            break
    for name, (state, seconds) in ended.items():
        console.line("time", f"{duration(seconds):>12}  {name}{'' if state == 'done' else f' ({state})'}")
    if any(Path(RUNS).glob("*/*/status.json")):
        console.line("gallery", str(make_gallery(Path(RUNS))[0]))
    states = {state for state, _ in ended.values()}
    return INTERRUPTED if f"exit code {INTERRUPTED}" in states else int(states != {"done"})


def _chosen(only: Sequence[str]) -> list[str]:
    for name in only:
        if name not in DEMOS:
            raise ConfigError(
                f"--only {name}: there is no such demonstration{suggestion(name, DEMOS)}",
                f"one of {', '.join(DEMOS)}",
                "use one of the names above",
            )
    return [name for name in DEMOS if name in only or not only]


def run_demo(name: str, overrides: Sequence[str], console: Console) -> int:
    """Run the commands of a demonstration up to the first that does not succeed; its exit code."""
    for command in DEMOS[name]:
        words = [*command.words, *(overrides if command.words[0] == "train" else ())]
        if command.leaves and Path(command.leaves).is_file():
            console.line("demo", f"{name}: {command.leaves} is there already")
            continue
        console.line("demo", f"{name}: generative {' '.join(words)}")
        if code := run_command(words):
            return code
    return 0


def run_command(words: Sequence[str]) -> int:
    """Run one command to its end; signals to this process are passed on to it, which then saves and leaves."""
    # In a session of its own it hears Ctrl-C once, from here: twice would end it before it has saved.
    process = subprocess.Popen([*PROGRAM, *words], start_new_session=True)
    with _passed_on_to(process) as signals:
        code = process.wait()
    if signals and code:
        return INTERRUPTED
    return code if code >= 0 else 128 - code


@contextmanager
def _passed_on_to(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Gives the signals that came."""
    came: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        came.append(number)
        process.send_signal(number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    mine = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
    for number in mine:
        signal.signal(number, pass_on)
    try:
        yield came
    finally:
        for number in mine:
            signal.signal(number, before[number])
