"""`generative import --method adm|ldm`: a published diffusion model as a pipeline, to restore images with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from generative import __version__
from generative.hub.legacy import check_there
from generative.hub.parts import write_parts
from generative.hub.published_priors import PRIORS


def import_prior(
    file: Path,
    method: str,
    source: str,
    target: Path,
    settings: Mapping[str, str],
    as_trained: bool,
    say: Callable[[str, str], None],
) -> list[Path]:
    """Read, check every tensor, and write the folder; the files that were written.

    Args:
        file: on this machine.
        method: one of PRIORS.
        source: where the user says that it is.
        target: checked by `check_target`.
        settings: what the file does not tell.
        as_trained: the weights as trained, where there are averages too.
        say: hears lines.

    Raises:
        ConfigError, CheckpointError, DataError, ResourceError: before anything is written, or nothing is left.
    """
    check_there(file)
    reader = PRIORS[method]
    asked = reader.settings(settings)
    say("read", str(file))
    found = reader.read(file, asked, as_trained)
    found.check(str(file))
    parts = ", ".join(f"{name} ({len(part.state)} tensors)" for name, part in found.parts.items() if part.state)
    say("import", f"{method} as {found.pipeline}: {parts}")
    for note in found.notes:
        say("note", note)
    with file.open("rb") as opened:
        digest = "sha256:" + hashlib.file_digest(opened, "sha256").hexdigest()
    about = {"_generative_version": __version__, "_source": {"from": source, "file": file.name, "digest": digest}}
    return write_parts(target, found.pipeline, found.parts, about)
