"""What the report of an erasure tells: residuals, derived embeddings, singular values, neighbours, images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from evaluation.erasure_report import Drawn, ErasureFacts
from generative.hub.erasing import Outcome
from generative.methods.rece.formats import LORA, PARTIAL, TRANSFORM
from generative.methods.rece.measures import Neighbour, neighbours, norms, residuals
from generative.methods.rece.request import Request
from launch.erase_asked import EraseAsked

NEIGHBOURS, WORDS = 8, 40
"""Shown of each kind, and words of the vocabulary that are looked at for each concept."""
KEPT = 2000
"""Texts to keep that are looked at."""
BATCH = 64
"""Of them, encoded together."""
SAYS = {
    TRANSFORM: "P and Q of each erasure; for --undo, stacking, and use at run time",
    PARTIAL: "edited matrices; load_state_dict(..., strict=False)",
    LORA: "for load_lora_weights",
}


def gather(
    asked: EraseAsked,
    request: Request,
    found: Outcome,
    written: Mapping[str, bytes],
    notes: Sequence[str],
    seconds: float,
) -> ErasureFacts:
    """Measure and describe an outcome."""
    config = request.config
    record: dict[str, Any] = {"streams": {}, "edits": found.edits.told() if found.edits else None}
    numbers: list[Sequence[str]] = []
    epochs: list[Sequence[str]] = []
    for name, erasure in found.erasures.items():
        task, state = found.tasks[name], found.applied(name)
        measured = residuals(state, task, config) | {"smallest_singular_value": state.total.smallest_singular_value()}
        rows = []
        for number, epoch in enumerate(erasure.epochs, start=1):
            least = epoch.state.total.smallest_singular_value()
            for concept, derived in zip(task.concepts, epoch.derived, strict=True):
                size, ratio = norms(derived, concept)
                rows.append({"epoch": number, "concept": concept.text, "norm": size, "ratio": ratio, "smallest": least})
                epochs.append((name, str(number), concept.text, f"{size:.4g}", f"{ratio:.4g}", f"{least:.3g}"))
        numbers += [
            (name, "residual of the concepts", f"{measured['erased']:.4g}"),
            (name, "drift of what is kept", f"{measured['kept']:.4g}"),
            (name, "smallest singular value of T", f"{measured['smallest_singular_value']:.3g}"),
            (name, "rank of T - I", str(state.total.compressed()[0].rank)),
        ]
        record["streams"][name] = {**measured, "epochs": rows}
    rounding = found.rounding()
    if rounding is not None:
        numbers.append(("all", "change lost in the weights' number format", f"{rounding:.3g}"))
    numbers += [("all", "LoRA", note) for note in notes]
    near = _near(request, found)
    drawn, why = _images(asked, found)
    record |= {
        "rounding": rounding,
        "seconds": seconds,
        "neighbours": [list(row) for row in near],
        "images": why or "drawn",
    }
    facts = {
        "Method": f"{'RECE' if config.epochs else 'UCE'}, preset {asked.preset}",
        "Epochs": str(config.epochs),
        "lam": f"{config.lam:g}",
        "lamb": f"{config.start.lamb:g}, then {config.step.lamb:g}" if config.epochs else f"{config.start.lamb:g}",
        "Shrink": f"{config.shrink:g}" if config.shrink else "",
        "Tokens": config.start.variant,
        "Strength": f"{asked.strength:g}",
        "Seconds": f"{seconds:.1f}",
        "Base": found.edits.base_hash[:16] if found.edits else "",
    }
    return ErasureFacts(
        model=f"{found.model.name} ({found.model.pipeline or found.model.kind})",
        concepts=[concept for concept, _ in request.paired()],
        guides=[guide for _, guide in request.paired()],
        facts={name: value for name, value in facts.items() if value},
        numbers=numbers,
        epochs=epochs,
        near=near,
        files=[(name, f"{len(data):,}", SAYS.get(name, "")) for name, data in written.items()],
        drawn=drawn,
        not_drawn=why,
        record=record,
    )


def _near(request: Request, found: Outcome) -> list[Sequence[str]]:
    """The nearest texts that are kept, and the nearest words of the vocabulary."""
    if "text" not in found.erasures:
        return []
    encoders = found.model.encoders()
    concepts = found.tasks["text"].concepts
    first = next(iter(encoders.parts.values()))
    words = dict.fromkeys(word for prompt in concepts for word in first.near_words(prompt.text, WORDS))
    rows: list[Sequence[str]] = []
    for kind, texts in (("kept", list(islice(request.keep, KEPT))), ("vocabulary", list(words))):
        near: list[Neighbour] = []
        for start in range(0, len(texts), BATCH):  # an encoder's states of thousands of texts are gigabytes
            prompts = encoders.encode(texts[start : start + BATCH])["text"]
            near += neighbours(found.applied("text"), concepts, prompts, NEIGHBOURS)
        for one in sorted(near, key=lambda one: -one.similarity)[:NEIGHBOURS]:
            rows.append((one.text, kind, one.near, f"{one.similarity:.3f}", f"{one.change:.4f}"))
    return rows


def _images(asked: EraseAsked, found: Outcome) -> tuple[list[Drawn], str]:
    from launch.erase_images import draw

    if asked.images < 1:
        return [], "None were asked for (--images)."
    texts = [prompt.text for prompt in next(iter(found.tasks.values())).concepts]
    return draw(found, texts, asked.images, asked.seed)
