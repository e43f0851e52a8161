"""Damage is repeatable and does something; figures count what went wrong."""

import pickle
from pathlib import Path
from random import Random

import pytest
import yaml

from launch import robustness_bench
from launch.robustness.attempts import Attempt, Verdict
from launch.robustness.cases import _configuration
from launch.robustness.damage import BYTES, MARKER, TEXT, hostile_pickle

DATA = b"train:\n  steps: 10\n  optimizer: {lr: 1.0e-3}\n# a comment\nlaunch: {workers: 2}\n" * 5


@pytest.mark.parametrize("damage", [*BYTES, *dict.fromkeys(TEXT)], ids=lambda damage: damage.__name__)
def test_damage_is_repeatable_and_changes_the_file(damage):
    found = [damage(DATA, Random(seed)) for seed in range(20)]
    assert found == [damage(DATA, Random(seed)) for seed in range(20)]
    assert sum(one != DATA for one in found) >= 15
    assert all(isinstance(damage(b"", Random(seed)), bytes) for seed in range(20))


def test_the_hostile_pickle_runs_a_command_where_it_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(hostile_pickle())
    assert (tmp_path / MARKER).exists()


def test_damaged_configurations_differ_from_one_another(tmp_path):
    made = [_configuration(tmp_path / str(n), Random(n)) for n in range(20)]
    texts = {(one.folder / one.words[-1]).read_bytes() for one in made}
    assert len(texts) > 15
    refused = 0
    for text in texts:
        try:
            yaml.safe_load(text)
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
            refused += 1
    assert 0 < refused < len(texts)


def test_figures_count_each_problem():
    def verdict(code=2, told="to fix: it", halves=(), executed=False):
        return Verdict(Attempt("kind", (), Path()), code, told, halves, executed)

    verdicts = [
        verdict(),
        verdict(0, ""),
        verdict(1, "Traceback (most recent call last)"),
        verdict(-11, ""),
        verdict(None, ""),
        verdict(2, "wrong"),
        verdict(0, "", ("a.tmp",)),
        verdict(executed=True),
    ]
    values = {name: one["value"] for name, one in robustness_bench.figures(verdicts).items()}
    assert values == {
        "tried": 8,
        "tracebacks": 2,
        "half_written": 1,
        "hangs": 1,
        "without_remedy": 3,
        "executed": 1,
    }
