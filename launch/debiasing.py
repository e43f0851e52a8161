"""`generative debias`: rounds of images and edits until a concept shows its attributes in the wanted shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.erasure.labels import open_labels, shares
from generative.data.cache import default_cache
from generative.errors import ConfigError
from generative.hub.folder import check_target
from generative.hub.open_text_to_image import open_model
from generative.hub.whole_pipelines import drawing_folder
from generative.methods.rece.closed_form import gram
from generative.methods.rece.config import StepConfig
from generative.methods.rece.debias import Debiased, debias
from generative.methods.rece.erase import SharedTransform
from generative.methods.rece.formats import Edits, Erased, edited_weights
from generative.methods.rece.live import replace_weights
from generative.methods.rece.preserve import Kept
from launch.erase_images import opened_pipeline
from launch.erasing import AskedFiles, Line, write_edits

STEP = StepConfig(variant="last", lamb=0.5, preserve_scale=1.0)
"""UCE's newer code: the last content token, and the empty text kept."""


@dataclass(frozen=True)
class AskedShares:
    """What the command line asks for; see `launch.erase_cli.debias`."""

    model: str
    concept: str
    attributes: Sequence[str]
    wanted: tuple[float, ...] = ()
    labels: str = "clip"
    images: int = 20
    rounds: int = 30
    seed: int = 0
    revision: str | None = None
    text: str | None = None


def debias_to(asked: AskedShares, files: AskedFiles) -> Iterator[Line]:
    """Edit and write; a line for each round.

    Raises:
        ConfigError: attributes or shares that do not go together, a concept that tokenizes to nothing.
        CheckpointError: a model that cannot draw, or be fetched.
    """
    check_target(files.out, force=None)
    model = open_model(asked.model, asked.revision, asked.text)
    drawing_folder(model)
    everything = model.streams()
    stream = next(one for one in everything if one.name == "text")
    concept, *attributes, empty = model.encoders().encode([asked.concept, *asked.attributes, ""])["text"]
    if concept.content < 1:
        raise ConfigError(f"the concept {asked.concept!r} tokenizes to nothing", "a text", "correct --concept")
    wanted = Debiased(concept, attributes, asked.wanted)
    labels = open_labels(asked.labels, asked.attributes, default_cache().parent / "erasure")
    weights = model.read(stream.readers)
    denoiser, image = opened_pipeline(model)
    found: list[Tensor] = []

    def seen(state: SharedTransform, numbers: Sequence[int]) -> list[Tensor]:
        replace_weights(denoiser, edited_weights(weights, [stream], {"text": state.total}))
        drawn = torch.stack([image(asked.concept, asked.seed + i) for i in range(asked.images)])
        found.append(shares(labels(drawn), len(asked.attributes)))
        return [found[-1]]

    state = SharedTransform.of(gram((w[:, stream.columns] for w in weights.values()), stream.width))
    kept = Kept.of("last", [empty], stream.width)
    after, (alpha,) = debias(state, [wanted], kept, STEP, seen, asked.rounds)
    for number, row in enumerate(found):
        yield f"round {number}", ", ".join(f"{a} {s:.0%}" for a, s in zip(asked.attributes, row.tolist(), strict=True))
    yield "alpha", ", ".join(f"{a} {x:+.3f}" for a, x in zip(asked.attributes, alpha.tolist(), strict=True))
    about = {
        "concepts": [asked.concept],
        "attributes": list(asked.attributes),
        "wanted": wanted.shares.tolist(),
        "alpha": alpha.tolist(),
        "shares": [row.tolist() for row in found],
        "labels": asked.labels,
    }
    made = Erased({"text": after.transform}, about)
    extra = {} if model.text is None else {"text": model.text}
    edits = Edits(model.name, model.fingerprint(everything), (made,), model.revision, extra)
    yield from write_edits(model, edits, files)
