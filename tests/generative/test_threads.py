"""Threads soon sleep while they wait, but where the environment says otherwise."""

from __future__ import annotations

import os

import pytest

from generative.threads import BRIEFLY, CHOSEN, SPINS, spin_briefly


def test_the_environment_decides_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SPINS, "")  # so that it is put back
    for name in CHOSEN:
        monkeypatch.delenv(name, raising=False)
    spin_briefly()
    assert os.environ[SPINS] == BRIEFLY
    monkeypatch.setenv(SPINS, "7")
    spin_briefly()
    assert os.environ[SPINS] == "7"
    monkeypatch.delenv(SPINS)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    spin_briefly()
    assert SPINS not in os.environ
