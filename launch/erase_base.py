"""The untouched models that erasures are of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from generative.errors import CheckpointError, ConfigError
from generative.hub.open_text_to_image import open_model
from generative.hub.text_to_image import TextToImage
from generative.methods.rece.formats import TRANSFORM, Edits, read_transform


def open_base(
    name: str, revision: str | None = None, text: str | None = None, base: str | None = None
) -> tuple[TextToImage, Edits | None]:
    """A model, or that which an earlier erasure is of, with its edits.

    Args:
        name: of the model, or folder of an erasure.
        revision: on the hub, of the model or `base`.
        text: pipeline that a file belongs to.
        base: where the model of the erasure is now, if it has moved.

    Raises:
        CheckpointError: no such model, or a base that is no longer as it was.
        ConfigError: a base for something that is no erasure.
    """
    path = Path(name).expanduser() / TRANSFORM
    if not path.is_file():
        if base is not None:
            raise ConfigError(f"--base with {name}, which is no erasure", f"a folder with {TRANSFORM}", "correct MODEL")
        return open_model(name, revision, text), None
    edits = read_transform(path)
    text = text or edits.extra.get("text")
    try:
        model = open_model(base or edits.base, revision if base else edits.revision, text)
    except CheckpointError as error:
        raise CheckpointError(
            f"the model that {name} is of: {error.problem}",
            error.expected,
            f"where it has moved: generative erase {name} --base MODEL --out NEW; else: {error.remedy}",
        ) from error
    edits.check_base(model.fingerprint(model.streams()))
    place = {} if model.text is None else {"text": model.text}
    return model, replace(edits, base=model.name, revision=model.revision, extra={**edits.extra, **place})
