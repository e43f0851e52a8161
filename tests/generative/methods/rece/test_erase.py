"""The shared transform and the edit layer by layer are one edit; what the constants do; what brings a concept back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generative.errors import ConfigError
from generative.methods.rece.closed_form import derive, gram
from generative.methods.rece.config import PRESETS, EraseConfig, StepConfig
from generative.methods.rece.erase import SharedTransform, Task, erase
from generative.methods.rece.layers import Layers
from generative.methods.rece.measures import norms, residuals
from generative.methods.rece.preserve import Kept
from tests.generative.methods.rece.texts import prompt, shared, task, weights

STEP = StepConfig(variant="whole", lamb=0.1, preserve_scale=0.1)


@settings(max_examples=25)
@given(
    variant=st.sampled_from(["suffix", "whole", "last"]),
    regulariser=st.sampled_from(["zero", "standard", "surrogate_2nd", "surrogate_both"]),
    lam=st.floats(1e-3, 1.0),
    cumulative=st.booleans(),
    scale_free=st.booleans(),
    shrink=st.sampled_from([0.0, 0.01]),
    width=st.sampled_from([6, 12, 30]),
)
def test_transform_is_the_edit_layer_by_layer(variant, regulariser, lam, cumulative, scale_free, shrink, width) -> None:
    config = EraseConfig(
        start=StepConfig(variant=variant, shrink=shrink),
        epochs=2,
        lam=lam,
        regulariser=regulariser,
        step=STEP.model_copy(update={"shrink": shrink}),
        cumulative=cumulative,
        scale_free=scale_free,
    )
    matrices, work = weights(width), task(width)
    slow, fast = erase(Layers.of(matrices), work, config), erase(shared(matrices), work, config)
    for ours, theirs in zip(
        [fast.start, *(e.state for e in fast.epochs)], [slow.start, *(e.state for e in slow.epochs)], strict=True
    ):
        for name, weight in matrices.items():
            torch.testing.assert_close(ours.transform.on_weight(weight), theirs.current[name], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("cumulative", [False, True])
def test_distinct_rows_count_equal_pairs_once(cumulative: bool) -> None:
    """The same concept given twice is as one; by default it weighs twice, and start tokens once for each concept."""
    matrices, once = weights(), task()
    once = Task(once.concepts[:1], once.guides[:1], once.kept_at_start, once.kept)
    twice = Task([*once.concepts] * 2, [*once.guides] * 2, once.kept_at_start, once.kept)
    for distinct in (True, False):
        step = STEP.model_copy(update={"distinct_rows": distinct})
        config = EraseConfig(start=step, step=step, epochs=1, cumulative=cumulative)
        states = [Layers.of(matrices), shared(matrices)]
        for state in states:
            one, two = (erase(state, work, config).state for work in (once, twice))
            made = [s.current if isinstance(s, Layers) else {"": s.transform.matrix} for s in (one, two)]
            near = all(torch.allclose(w, made[1][name], rtol=1e-9, atol=1e-9) for name, w in made[0].items())
            assert near == distinct
    with pytest.raises(ValueError, match="distinct_rows"):
        StepConfig(technique="tensor", distinct_rows=True)


@pytest.mark.parametrize(("shrink", "erase_scale"), [(0.0, 1.0), (0.0, 3.0), (0.2, 1.0), (0.2, 3.0)])
def test_the_edit_is_the_minimum(shrink: float, erase_scale: float) -> None:
    """The gradient of the objective vanishes at W T."""
    matrices, work = weights(), task()
    step = STEP.model_copy(update={"shrink": shrink, "erase_scale": erase_scale})
    found = erase(shared(matrices), work, EraseConfig(epochs=0, start=step)).state.transform
    energy = 0.1 * sum(kept.rows.square().sum() for kept in (prompt("", content=0), prompt("tree")))
    for weight in matrices.values():
        new = (weight @ found.matrix).requires_grad_()
        loss = 0.1 * (new - weight).square().sum() + shrink * energy * new.square().sum()
        for c, g in zip(work.concepts, work.guides, strict=True):
            loss = loss + erase_scale * (c.rows @ new.T - g.rows @ weight.T).square().sum()
        for kept in (prompt("", content=0), prompt("tree")):
            loss = loss + 0.1 * (kept.rows @ new.T - kept.rows @ weight.T).square().sum()
        loss.backward()
        assert float(new.grad.abs().max()) < 1e-10


def test_shrinking_gives_up_what_is_not_kept() -> None:
    """What is outside of the span of all that is kept goes to nothing, what is within it stays. It is a share: with all
    weights fifty times as large the edit is the same."""
    rows = torch.eye(12, dtype=torch.float64)
    work = Task([prompt("church")], [prompt("art")], Kept(torch.diag(rows[:4].sum(0)), 1), Kept.nothing(12))
    step = StepConfig(variant="last", lamb=0.0, preserve_scale=1.0, shrink=1e-9, erase_scale=1e-12)
    config = EraseConfig(start=step, epochs=0)
    found = erase(shared(weights()), work, config).state.transform.matrix
    torch.testing.assert_close(found, torch.diag(rows[:4].sum(0)), rtol=0, atol=1e-2)
    often = Task(work.concepts, work.guides, work.kept_at_start.times(50), work.kept)
    scaled = EraseConfig(start=step.model_copy(update={"erase_scale": 50e-12}), epochs=0)
    torch.testing.assert_close(erase(shared(weights()), often, scaled).state.transform.matrix, found)
    with pytest.raises(ValueError, match="shrink"):
        StepConfig(technique="tensor", shrink=0.1)


def test_a_derived_embedding_brings_the_concept_back_and_erasing_it_does_not() -> None:
    matrices, work = weights(30), task(30)
    config = EraseConfig(epochs=3, lam=1e-3, step=STEP)
    found = erase(shared(matrices), work, config)
    concept = work.concepts[0]
    states = [found.start, *(epoch.state for epoch in found.epochs)]

    def missed(state: SharedTransform, rows: torch.Tensor) -> float:
        new = sum(
            (rows @ state.transform.on_weight(w).T - concept.rows @ w.T).square().sum() for w in matrices.values()
        )
        return float(new / sum((concept.rows @ w.T).square().sum() for w in matrices.values())) ** 0.5

    for before, epoch in zip(states, found.epochs, strict=False):
        rows = epoch.derived[0].rows
        assert missed(before, rows) < missed(before, concept.rows)
        assert missed(epoch.state, rows) > missed(before, rows)
        assert norms(epoch.derived[0], concept)[1] == pytest.approx(float(rows.norm() / concept.rows.norm()))
    singular = [state.transform.smallest_singular_value() for state in states]
    assert singular == sorted(singular, reverse=True)


def test_a_larger_ridge_makes_a_smaller_embedding() -> None:
    state = erase(shared(weights()), task(), EraseConfig(epochs=0)).state
    current, mixed = state.normal()
    rows = prompt("church").rows
    sizes = [float(derive(rows, current, mixed, lam).norm()) for lam in (1e-4, 1e-2, 1.0, 100.0)]
    assert sizes == sorted(sizes, reverse=True)


def test_constants_without_a_scale() -> None:
    """Embeddings and weights in other units give the same edit with scale_free, and another one without."""

    def transform(scale: float, unit: float, free: bool) -> torch.Tensor:
        config = EraseConfig(epochs=1, step=STEP, scale_free=free)
        return erase(shared(weights(scale=0.3 * unit)), task(scale=scale), config).state.transform.matrix

    torch.testing.assert_close(transform(7.0, 5.0, True), transform(1.0, 1.0, True), rtol=1e-8, atol=1e-10)
    assert float((transform(7.0, 1.0, False) - transform(1.0, 1.0, False)).norm()) > 0.05
    assert float((transform(1.0, 5.0, False) - transform(1.0, 1.0, False)).norm()) > 0.05


def test_a_second_erasure_builds_on_the_first() -> None:
    """Stacked transforms multiply; the second derivation still compares with the untouched weights."""
    matrices, work = weights(30), task(30)
    other = Task([prompt("dog", 30)], [prompt("", 30, content=0)], work.kept, work.kept)
    config = EraseConfig(epochs=1, step=STEP)
    first = erase(shared(matrices), work, config).state
    second = erase(SharedTransform.of(first.gram, first.transform), other, config).state
    slow = erase(erase(Layers.of(matrices), work, config).state, other, config).state
    for name, weight in matrices.items():
        torch.testing.assert_close(second.total.on_weight(weight), slow.current[name], rtol=1e-8, atol=1e-8)
    assert residuals(second, other, config)["erased"] < 0.8 * residuals(first, other, config)["erased"]
    assert residuals(second, work, config)["erased"] < 1


@pytest.mark.parametrize("preset", ["uce", "uce_last"])
def test_residuals_of_uce_alone_are_of_the_rows_that_it_pairs_and_the_texts_that_it_keeps(preset: str) -> None:
    """By position "church" stands beside the empty text's end token, where UCE sends nothing."""
    config, work = PRESETS[preset].erase, task(30)
    nothing = Task(work.concepts, work.guides, Kept.nothing(30), work.kept)
    assert residuals(shared(weights(30)), work, config)["erased"] == pytest.approx(1)
    assert residuals(erase(shared(weights(30)), work, config).state, work, config)["erased"] < 0.1
    assert residuals(erase(shared(weights(30)), nothing, config).state, nothing, config)["kept"] == 0


def test_cumulative_is_one_solve_from_the_weights_before() -> None:
    work, matrices = task(), weights()
    config = EraseConfig(epochs=3, step=STEP)
    found = erase(shared(matrices), work, config.model_copy(update={"cumulative": True}))
    plain = erase(shared(matrices), work, config)
    assert residuals(found.state, work, config)["erased"] < residuals(plain.state, work, config)["erased"]
    # One solve: the distance to the identity stays within what the ridge allows, over any number of epochs.
    assert float((found.state.transform.matrix - torch.eye(12)).norm()) < float(
        (plain.state.transform.matrix - torch.eye(12)).norm()
    )


def test_layers_that_are_left_out_stay_and_count() -> None:
    matrices, work = weights(), task()
    names = frozenset(name for name in matrices if name.endswith("to_v"))
    found = erase(Layers.of(matrices, names), work, EraseConfig(epochs=1, step=STEP))
    everywhere = erase(Layers.of(matrices), work, EraseConfig(epochs=1, step=STEP))
    for name, weight in matrices.items():
        assert torch.equal(found.state.current[name], weight) == (name not in names)
    grams = [gram([w for n, w in matrices.items() if (n in names) is kept], 12) for kept in (True, False)]
    fast = erase(SharedTransform.of(grams[0], fixed=grams[1]), work, EraseConfig(epochs=1, step=STEP)).state
    for name in names:
        torch.testing.assert_close(fast.transform.on_weight(matrices[name]), found.state.current[name])
    derived, other = found.epochs[0].derived[0], everywhere.epochs[0].derived[0]
    assert float((derived.rows - other.rows).norm()) > 1e-3


def test_tensor_takes_the_concepts_direction_out_of_the_values() -> None:
    matrices, work = weights(), task()
    step = StepConfig(technique="tensor", lamb=0.0, preserve_scale=0.0, empty_text="never", variant="last")
    found = erase(Layers.of(matrices), work, EraseConfig(epochs=0, start=step)).state
    for name, weight in matrices.items():
        for c, g in zip(work.concepts, work.guides, strict=True):
            row, guide = c.segments[0].rows[2], g.segments[0].rows[g.segments[0].last]
            old, new = weight @ row, weight @ guide
            wanted = new - (new @ old) / (old @ old) * old
            torch.testing.assert_close(found.current[name] @ row, wanted, rtol=1e-7, atol=1e-7)
    with pytest.raises(ConfigError, match="no transform that all layers share"):
        erase(shared(matrices), work, EraseConfig(epochs=0, start=step))


def test_presets_are_the_published_settings() -> None:
    told = {name: (p.erase.lam, p.erase.epochs, p.guide) for name, p in PRESETS.items()}
    assert told["nudity"] == (0.1, 3, " ")
    assert told["unsafe"] == (0.1, 2, " ")
    assert told["artist"] == (1e-3, 1, "art")
    assert told["hard_object"] == (1e-3, 1, " ")
    assert told["easy_object"] == (0.1, 1, " ")
    assert len(PRESETS["unsafe"].concepts) == 11
    for name, preset in PRESETS.items():
        if name.startswith("uce"):
            assert preset.erase.epochs == 0
        if name.startswith("uce") or name == "keep_only":  # ours
            continue
        start, step = preset.erase.start, preset.erase.step
        assert (start.variant, start.lamb, start.erase_scale) == ("suffix", 0.5, 1)
        assert start.preserve_scale == (0.1 if name == "artist" else 1)
        assert (step.variant, step.lamb, step.erase_scale, step.preserve_scale) == ("whole", 0.1, 1, 0.1)
        assert step.empty_text == ("each" if name in ("nudity", "unsafe") else "once")


@pytest.mark.parametrize(("texts", "scale"), [(0, 1.0), (1, 1.0), (3, 0.333), (7, 0.143), (1734, 0.1)])
def test_default_weight_of_what_is_kept(texts: int, scale: float) -> None:
    assert StepConfig().preserve(texts) == scale
    kept = Kept(torch.eye(2, dtype=torch.float64), texts)
    assert torch.equal(kept.weighed(StepConfig()), scale * kept.gram)
