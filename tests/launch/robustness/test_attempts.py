"""Verdicts on commands that behave badly in known ways."""

import os
import signal
import time

import pytest

import launch.cli
from launch.robustness.attempts import Attempt, attempt
from launch.robustness.damage import MARKER


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """Judges a stand-in for the command line."""

    def judge(main, seconds=20.0):
        monkeypatch.setattr(launch.cli, "main", main)
        return attempt(Attempt("kind", ("some", "words"), tmp_path, tmp_path / "out"), seconds)

    return judge


def test_a_clear_refusal_is_well(judged):
    def main(words):
        assert words == ["some", "words"]
        print("bad value\nexpected: another\nto fix: change it")
        return 2

    verdict = judged(main)
    assert (verdict.code, verdict.halves) == (2, ())
    assert [verdict.fault, verdict.mute, verdict.executed] == [False] * 3


def test_the_real_command_line_is_what_runs(tmp_path):
    verdict = attempt(Attempt("kind", ("config", "show", "masked_diffusion/quikstart"), tmp_path), 60)
    assert verdict.code == 2
    assert "Did you mean masked_diffusion/quickstart?" in verdict.told


def test_an_exception_is_a_fault_and_a_silent_failure_is_mute(judged):
    def main(words):
        raise KeyError("step")

    verdict = judged(main)
    assert verdict.fault
    assert verdict.code == 1
    assert judged(lambda words: 3).mute


def test_a_crash_is_a_fault(judged):
    verdict = judged(lambda words: os.kill(os.getpid(), signal.SIGKILL))
    assert verdict.code == -signal.SIGKILL
    assert verdict.fault


def test_a_command_that_does_not_end_is_ended(judged):
    started = time.monotonic()
    verdict = judged(lambda words: time.sleep(600), seconds=0.5)
    assert verdict.code is None
    assert not verdict.fault
    assert time.monotonic() - started < 60


def test_unfinished_files_are_found(judged, tmp_path):
    def main(words):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "torn.json").write_text('{"a": ')
        (tmp_path / "out" / "whole.json").write_text("{}")
        (tmp_path / "out" / "torn.png").write_bytes(b"\x89PNG")
        (tmp_path / "x.json.17.tmp").write_text("")
        (tmp_path / "out" / ".y.wav.17-1.part").write_text("")
        return 0

    assert sorted(judged(main).halves) == [
        "out/.y.wav.17-1.part",
        "out/torn.json",
        "out/torn.png",
        "x.json.17.tmp",
    ]


def test_code_that_was_run_is_seen(judged, tmp_path):
    def main(words):
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep" / MARKER).touch()
        return 0

    assert judged(main).executed
