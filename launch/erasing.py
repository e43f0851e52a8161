"""`generative erase`: what is asked for as a request, and its outcome as a folder with a report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from evaluation.erasure_report import build_erasure_report
from generative.data.cache import default_cache
from generative.errors import ConfigError
from generative.hub.erased_files import recovered, write_model
from generative.hub.erasing import Asked, erase_model
from generative.hub.folder import appearing, check_space, check_target
from generative.hub.text_to_image import TextToImage
from generative.hub.whole_pipelines import whole_folder
from generative.methods.rece.families import Stream, chosen, chosen_streams
from generative.methods.rece.formats import (
    LORA,
    PARTIAL,
    TRANSFORM,
    Edits,
    edited_weights,
    lora,
    lora_bytes,
    partial_bytes,
    read_transform,
    transform_bytes,
)
from generative.methods.rece.preserve import read_texts
from launch.erase_asked import EraseAsked
from launch.erase_base import open_base
from launch.erase_facts import gather
from launch.erase_sums import summing_with

FULL, REPORT, RECORD = "model", "report.html", "report.json"
Line = tuple[str, str]


@dataclass(frozen=True)
class AskedFiles:
    """What is written: the folder, formats (transform, partial, lora, full), and the rank of the LoRA."""

    out: Path
    formats: Sequence[str]
    rank: int | None = None


def erase_to(asked: EraseAsked, files: AskedFiles) -> Iterator[Line]:
    """Erase and write; lines for the user as it goes on.

    Raises:
        ConfigError, CheckpointError, DataError: before anything is written.
        ResourceError: the disk is full or cannot be written; nothing is left behind.
    """
    check_target(files.out, force=None)
    request = asked.request()
    request.paired()
    model, earlier = open_base(asked.model, asked.revision, asked.text, asked.base)
    yield "model", f"{model.name}: {model.kind}"
    if asked.edited is not None:
        earlier = _built_on(asked, model, earlier)
    begun = time.perf_counter()

    def keep() -> Iterator[str]:
        return iter(()) if asked.preserve is None else request.agreeing(read_texts(asked.preserve))

    wanted = Asked(request, keep, earlier, asked.include, asked.exclude, strength=asked.strength)
    if asked.launch is not None:
        log = default_cache().parent / "erasure" / "ray_map.log"
        wanted = replace(wanted, summing=summing_with(model.name, model.revision, model.text, asked.launch, log))
    found = erase_model(model, wanted)
    seconds = time.perf_counter() - begun
    yield "erased", f"{', '.join(request.concepts)} from {len(found.edited)} matrices in {seconds:.1f} s"
    written, notes = contents(found.model, found.streams, found.weights, found.edited, found.edits, files)
    facts = gather(asked, request, found, written, notes, seconds)
    written |= {
        REPORT: build_erasure_report(facts).encode(errors="replace"),
        RECORD: json.dumps(facts.record, indent=1, ensure_ascii=False).encode(),
    }
    yield from (("lora", note) for note in notes)
    write(files, written, found.model, found.edited)
    yield "written", f"{files.out}: {', '.join([*written, *([FULL] if 'full' in files.formats else [])])}"


def undo_to(name: str, files: AskedFiles, text: str | None = None, base: str | None = None) -> Iterator[Line]:
    """Write the model as it was before the last erasure: derived from the base model, so that nothing is rounded.

    Raises:
        ConfigError: the folder holds no erasure that can be taken back.
        CheckpointError: the base model has changed, or cannot be read.
    """
    check_target(files.out, force=None)
    path = Path(name).expanduser() / TRANSFORM
    if not path.is_file() or not read_transform(path).erased:
        raise ConfigError(
            f"{name}: there is no erasure to take back",
            expected=f"a folder with {TRANSFORM} that erase wrote",
            remedy="give such a folder; without a transform (technique tensor), take the base model itself",
        )
    model, edits = open_base(name, text=text, base=base)
    assert edits is not None
    last, left = edits.erased[-1], replace(edits, erased=edits.erased[:-1])
    *notes, written = write_edits(model, left, files, edits)
    yield from notes
    yield "undone", ", ".join(last.about.get("concepts", ()))
    yield (
        "left",
        "; ".join(", ".join(one.about.get("concepts", ())) for one in left.erased) or "the base model, bitwise",
    )
    yield written


def convert_to(asked: EraseAsked, files: AskedFiles) -> Iterator[Line]:
    """Write somebody's edit in our formats, from the transform that is recovered of it; or an erasure with its --base.

    Raises:
        ConfigError: --edited on top of an erasure, or --base without one.
        CheckpointError: see `recovered`.
    """
    check_target(files.out, force=None)
    model, edits = open_base(asked.model, asked.revision, asked.text, asked.base)
    if asked.edited is not None:
        edits = _built_on(asked, model, edits)
        told = edits.erased[-1].about["residuals"]
        yield "read", ", ".join(f"{name}: residual {missed:.2g} of the edit" for name, missed in told.items())
    assert edits is not None
    yield from write_edits(model, edits, files)


def _built_on(asked: EraseAsked, model: TextToImage, earlier: Edits | None) -> Edits:
    assert asked.edited is not None
    if earlier is not None:
        raise ConfigError(
            f"--edited {asked.edited} with {asked.model}, which is an erasure itself",
            expected="the model that the file was made from",
            remedy="give the untouched model, or leave out --edited",
        )
    edits, _ = recovered(model, asked.edited, chosen_streams(model.streams(), asked.include, asked.exclude))
    extra = {"include": asked.include, "exclude": asked.exclude, "text": model.text}
    return replace(edits, extra={name: value for name, value in extra.items() if value is not None})


def write_edits(model: TextToImage, edits: Edits, files: AskedFiles, touched: Edits | None = None) -> Iterator[Line]:
    """The formats that are asked for, derived from the base model anew; of all matrices that `touched` edits."""
    streams = edited_streams(model, touched or edits)
    weights = model.read([reader for stream in streams for reader in stream.readers])
    edited = edited_weights(weights, streams, edits.total())
    written, notes = contents(model, streams, weights, edited, edits, files)
    yield from (("lora", note) for note in notes)
    write(files, written, model, edited)
    yield "written", f"{files.out}: {', '.join([*written, *([FULL] if 'full' in files.formats else [])])}"


def edited_streams(model: TextToImage, edits: Edits) -> list[Stream]:
    """Of a model, those that edits are of, with the readers that they change."""
    names = {name for one in edits.erased for name in one.transforms}
    include, exclude = edits.extra.get("include"), edits.extra.get("exclude")
    return [chosen(stream, include, exclude) for stream in model.streams() if stream.name in names]


def contents(
    model: TextToImage,
    streams: Sequence[Stream],
    weights: Mapping[str, Tensor],
    edited: Mapping[str, Tensor],
    edits: Edits | None,
    files: AskedFiles,
) -> tuple[dict[str, bytes], list[str]]:
    """Files by name, and what is to be told of them."""
    notes, made = [], dict[str, bytes]()
    if edits is None and ("lora" in files.formats or set(files.formats) == {"transform"}):
        kind = "LoRA" if "lora" in files.formats else "transform"
        raise ConfigError(f"a {kind} of the technique tensor", "an edit with a transform", "use --technique replace")
    if edits is not None and not edits.erased and "lora" in files.formats:
        raise ConfigError("a LoRA of the base model", "an erasure that is left", "leave out --format lora")
    if edits is not None and "transform" in files.formats:
        made[TRANSFORM] = transform_bytes(edits)
    if "partial" in files.formats:
        made[PARTIAL] = partial_bytes(edited, edits.told() if edits else {"base": model.name})
    if edits is not None and "lora" in files.formats:
        small = lora(weights, streams, edits.total(), model.part, files.rank)
        made[LORA] = lora_bytes(small)
        missed = max(small.missed.values(), default=0.0)
        notes.append(f"rank {small.rank}, {small.nbytes / 1e6:.1f} MB, truncation error {missed:.2g} of |T - I|")
    return made, notes


def write(files: AskedFiles, written: Mapping[str, bytes], model: TextToImage, edited: Mapping[str, Tensor]) -> None:
    """The folder, complete or not at all; raises ResourceError, and ConfigError: a copy of the model within itself."""
    target = files.out.expanduser().resolve()
    if "full" in files.formats and model.folder is not None:
        if target.is_relative_to(model.folder.resolve()):
            raise ConfigError(
                f"{files.out} is within the model's own folder {model.folder}, of which it is to be a copy",
                "a folder elsewhere",
                "name another --out, or leave out --format full",
            )
        whole_folder(model, checker=True)
    whole = model.nbytes() if "full" in files.formats else 0
    check_space(target, whole + sum(map(len, written.values())))
    with appearing(target, force=False) as partial:
        for name, data in written.items():
            (partial / name).write_bytes(data)
        if "full" in files.formats:
            write_model(model, edited, partial / FULL)
