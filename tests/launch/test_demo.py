from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from generative.config import known_names
from launch import cli, demo
from launch.console import Console
from launch.schema import load_run_config

COMMANDS = [command for commands in demo.DEMOS.values() for command in commands]


def test_every_quickstart_is_shown() -> None:
    trained = [command.words[1] for command in COMMANDS if command.words[0] == "train"]
    assert set(trained) == {name for name in known_names() if name.endswith("/quickstart")} | {"edm/restore"}
    assert len(trained) == len(set(trained))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.words)[:60])
def test_commands_are_understood_and_runs_lie_in_one_folder(command: demo.Command) -> None:
    verb, *words = command.words
    cli.command().commands[verb].make_context(verb, list(words))  # type: ignore[attr-defined]
    if verb == "train":
        assert load_run_config(words[0], []).folder == f"{demo.RUNS}/{words[0]}"


def test_what_a_command_takes_is_left_by_one_before_it() -> None:
    for commands in demo.DEMOS.values():
        made = {f"{demo.RUNS}/{command.words[1]}" for command in commands if command.words[0] == "train"} | {demo.MODEL}
        for command in commands[1:]:
            assert command.words[1] in made


class Program:
    """Stands in for `generative`: a Python text that sees its words in sys.argv[1:]."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, text: str, **demos: tuple[demo.Command, ...]) -> None:
        monkeypatch.setattr(demo, "PROGRAM", (sys.executable, "-c", text))
        monkeypatch.setattr(demo, "DEMOS", demos)
        self.stream = io.StringIO()

    def run(self, overrides: tuple[str, ...] = (), only: tuple[str, ...] = ()) -> int:
        return demo.run_demos(overrides, only, Console(self.stream))

    @property
    def told(self) -> str:
        return self.stream.getvalue()


NOTE = """
import pathlib, sys
with open("said", "a") as file: print(*sys.argv[1:], file=file)
"""
TRAIN, AFTER = demo.Command(("train", "one")), demo.Command(("export", "one"), "made/file")


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_settings_are_of_trainings_and_what_is_there_is_not_made_again(
    inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = "if sys.argv[1] == 'export': pathlib.Path('made').mkdir(); pathlib.Path('made/file').touch()"
    program = Program(monkeypatch, NOTE + make, first=(TRAIN, AFTER), second=(demo.Command(("train", "two")),))
    assert program.run(("a.b=c",)) == 0
    assert (inside / "said").read_text().splitlines() == ["train one a.b=c", "export one", "train two a.b=c"]
    assert program.run(only=("first",)) == 0
    assert (inside / "said").read_text().splitlines()[3:] == ["train one"]
    assert "made/file is there already" in program.told
    assert "first: done in" in program.told
    assert "time " in program.told


def test_what_fails_leaves_out_its_followers_and_no_others(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail = "sys.exit(3 if 'one' in sys.argv else 0)"
    program = Program(monkeypatch, NOTE + fail, first=(TRAIN, AFTER), second=(demo.Command(("train", "two")),))
    assert program.run() == 1
    assert (inside / "said").read_text().splitlines() == ["train one", "train two"]
    assert "first (exit code 3)" in program.told


def test_an_interrupted_command_ends_all(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(monkeypatch, NOTE + "sys.exit(75)", first=(TRAIN, AFTER), second=(TRAIN,))
    assert program.run() == 75
    assert (inside / "said").read_text().splitlines() == ["train one"]


def test_a_signal_reaches_the_command_once_and_is_waited_for(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = """
import os, signal, sys, time
count = 0
def handle(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, handle)
open("ready", "w").close()
while not count: time.sleep(0.01)
time.sleep(0.3)  # it saves
open("count", "w").write(str(count))
sys.exit(130)
"""
    program = Program(monkeypatch, wait, first=(TRAIN,), second=(TRAIN,))

    def press() -> None:
        while not (inside / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    before = signal.getsignal(signal.SIGINT)
    thread.start()
    assert program.run() == 75
    thread.join()
    assert (inside / "count").read_text() == "1"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_page_over_all_runs_comes_at_the_end(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = "place = pathlib.Path('runs/x/y'); place.mkdir(parents=True); (place / 'status.json').write_text('{}')"
    program = Program(monkeypatch, NOTE + make, first=(TRAIN,))
    assert program.run() == 0
    assert (inside / "runs" / "gallery.html").is_file()
    assert "runs/gallery.html" in program.told


def test_a_demonstration_that_does_not_exist_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo-all", "--only", "sgms"]) == 2
    assert "Did you mean sgmse?" in capsys.readouterr().err


def test_the_command_passes_on_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(demo, "run_demos", lambda *words: asked.append(words) or 75)
    assert cli.main(["demo-all", "train.steps=2", "--only", "edm", "--only", "sgmse"]) == 75
    assert asked == [(["train.steps=2"], ["edm", "sgmse"])]
