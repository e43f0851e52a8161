"""Attacks by name on a model whose answers are known: bounds, what counts, and whose weights are in use when."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from evaluation.erasure.attack_settings import PROTOCOLS, AttackSettings
from evaluation.erasure.attacking import Attempt, Case, Victim, told
from evaluation.erasure.attacks import ATTACKS, attack
from evaluation.erasure.probes import at_level
from evaluation.erasure.prompts import PromptRow
from evaluation.erasure_measured import Curve, MeasuredFacts, attack_chart, build_measured_report
from evaluation.estimate import Estimate
from generative.errors import ConfigError
from generative.randomness import Streams
from tests.evaluation.erasure.test_attacks import D, FakeText, L

MATRIX = 2 * torch.eye(D)
T = torch.eye(D)
T[0, 0] = 0.1
"""The erasure: the first coordinate is nearly lost; T^-1 E(prompt) needs ten times of it."""
PLAIN = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])


class Model:
    """eps = the sum over tokens of MATRIX T h. An image is this sum, and shows the concept where it is as it was."""

    def __init__(self) -> None:
        self.edited, self.used = True, []

    def use(self, edited: bool) -> None:
        self.edited = edited
        self.used.append(edited)

    def predict(self, x, time, states):
        return ((states @ T.T if self.edited else states) @ MATRIX.T).sum(1)

    def image(self, states, seed, guidance):
        return self.predict(None, None, states[None])[0]

    def victim(self, **encoder) -> Victim:
        signal = torch.linspace(0.99, 0.01, 50)
        return Victim(self.predict, signal, SimpleNamespace(**encoder), self.image, lambda image: image, self.use)


def case(name: str, rhos: tuple[float, ...], **more) -> tuple[Case, Model]:
    model = Model()
    victim = model.victim(**more.pop("encoder", {}))
    shift, plain = more.pop("shift", None), more.pop("plain", PLAIN)
    wanted = (plain @ MATRIX.T).sum(0)

    def shows(states):
        return bool((model.image(states, 0, 1.0) - wanted).norm() < 0.2 * wanted.norm())

    def derived(states):
        return states @ torch.linalg.inv(T).T

    row = PromptRow(0, "x", 3, 1.0)
    return Case(victim, plain, row, AttackSettings(name, rhos, **more), derived, shift, shows), model


def hits(attempts: list[Attempt]) -> list[bool]:
    return [one.hit for one in attempts]


def test_all_attacks_have_a_protocol():
    assert set(PROTOCOLS) == set(ATTACKS)
    assert "7 steps" in AttackSettings("soft-prompt", steps=7).protocol
    assert "16 tokens" in AttackSettings("p4d").protocol
    with pytest.raises(ConfigError, match="unknown attack 'soft'"):
        AttackSettings("soft")
    with pytest.raises(ConfigError, match="norms"):
        AttackSettings("rece", (0.0, 1.0))


@pytest.mark.parametrize("name", ["rece", "soft-prompt"])
def test_success_needs_the_norm_of_the_inverse(name: str):
    found, model = case(name, (1.0, 3.0, 10.1, math.inf), steps=30)
    assert not found.shows(PLAIN)
    attempts = attack(found)
    assert hits(attempts) == [False, False, True, True]
    assert [one.ratio <= one.rho * 1.001 for one in attempts] == [True] * 4
    assert attempts[0].ratio == pytest.approx(1, abs=1e-3)
    assert model.edited


def test_targets_come_from_the_original_weights_and_images_from_the_edited_ones():
    found, model = case("soft-prompt", (1.0,), steps=1)
    probes = found.original(12)
    assert model.used == [False, True]
    torch.testing.assert_close(probes.wanted, (PLAIN @ MATRIX.T).sum(0).expand(12, D))
    assert [len(one.time) for one in probes.each()] == [1] * 12


def test_ring_a_bell_moves_the_prompt_and_keeps_to_the_norm():
    shift = torch.zeros(L, D)
    shift[:, 0] = 3.0
    found, _ = case("ring-a-bell", (1.0, math.inf), shift=shift, eta=3.0)
    attempts = attack(found)
    assert hits(attempts) == [False, True]
    assert attempts[1].ratio == pytest.approx(10)


def tokens_case(name: str, rhos: tuple[float, ...], steps: int, **more) -> Case:
    """The word 5 is ten times the concept; the prompt is the word 4."""
    text = FakeText()
    with torch.no_grad():
        text.table.weight.mul_(0.1)
        text.table.weight[5] = torch.tensor([30.0, 0.0, 0.0, 0.0])
        text.table.weight[[0, 1, 4]] = 0.0
        text.table.weight[4, 1] = 1e-3

    def tokenize(texts, **more):
        return {"input_ids": torch.tensor([[1, 4, 0]])}

    tokenizer = SimpleNamespace(decode=lambda ids: " ".join(map(str, ids)))
    encoder = {
        "model": text,
        "room": 2,
        "length": 3,
        "tokenizer": type(
            "Told",
            (),
            {
                "__call__": staticmethod(tokenize),
                "decode": staticmethod(tokenizer.decode),
                "all_special_ids": more.pop("special", [0, 1]),
            },
        )(),
    }
    return case(name, rhos, free=1, steps=steps, encoder=encoder, **more)[0]


def test_tokens_count_for_the_norms_that_they_keep_to():
    found = tokens_case("p4d", (2.0, 31.0, math.inf), 300)
    attempts = attack(found)
    assert [one.found for one in attempts] == ["5"] * 3
    assert attempts[0].ratio == pytest.approx(30, rel=1e-3)
    assert hits(attempts) == [False, True, True]
    assert told(attempts)[2] == {"rho": "inf", "hit": True, "ratio": attempts[2].ratio, "found": "5"}


def test_ring_a_bell_searches_tokens_for_the_moved_prompt():
    """The moved prompt is the word 5 between start and end: the word is found, unless it is a special one."""
    shift = torch.tensor([[-1.0, 0.0, 0.0, 0.0], [29.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]]) / 2
    more = {"shift": shift, "eta": 2.0}
    attempts = attack(tokens_case("ring-a-bell-tokens", (2.0, 31.0, math.inf), 5, **more))
    assert [one.found for one in attempts] == ["5"] * 3
    assert attempts[0].ratio == pytest.approx(30)
    assert hits(attempts) == [False, True, True]
    others = attack(tokens_case("ring-a-bell-tokens", (math.inf,), 5, special=[0, 1, 5], **more))
    assert others[0].found in {"2", "3", "4", "6"}
    full = tokens_case("ring-a-bell-tokens", (1.0,), 1, **more)
    full = replace(full, settings=replace(full.settings, free=3))
    with pytest.raises(ConfigError, match="3 free tokens"):
        attack(full)


def test_free_tokens_must_leave_room():
    found = tokens_case("p4d", (1.0,), 1)
    tight = Case(found.victim, found.plain, found.row, AttackSettings("p4d", free=2), found.derived, None, found.shows)
    with pytest.raises(ConfigError, match="2 free tokens"):
        tight.prefixed("x")


def test_a_probe_at_a_level_has_the_noise_as_its_target():
    signal, clean = torch.linspace(0.99, 0.01, 1000), torch.ones(1, D)
    levels = [int(at_level(signal, clean, (i + 0.5) / 50, i, Streams(0)).time) for i in range(50)]
    assert levels == list(range(10, 1000, 20))
    one, other = (at_level(signal, clean, 0.5, i, Streams(0)) for i in (0, 1))
    kept = signal[500]
    torch.testing.assert_close(one.noisy, kept.sqrt() * clean + (1 - kept).sqrt() * one.wanted)
    assert not torch.equal(one.wanted, other.wanted)


def test_the_report_draws_success_by_norm_and_escapes_names():
    points = [(math.inf, Estimate(0.5, 0.1, 20, "", "p")), (1.0, Estimate(0.25, 0.1, 20, "", "p"))]
    curve = Curve("soft-prompt", "how <b>", points)
    chart = attack_chart([curve])
    assert chart is not None
    (series,) = chart["series"]
    assert (series["x"], series["y"]) == ([1.0, 2.0], [0.25, 0.5])
    assert series["low"] == pytest.approx([0.05, 0.3])
    assert attack_chart([]) is None
    shares = {"before": points[0][1], "after": points[1][1]}
    page = build_measured_report(MeasuredFacts("erased <i>", shares, [curve], {}, {"Detector": "nudenet"}))
    assert "how <b>" not in page
    assert "erased <i>" not in page
    assert "Attack success" in page
    assert "Attack success" not in build_measured_report(MeasuredFacts("x", shares))
