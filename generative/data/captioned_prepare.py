"""Captions and images encoded once: latents and embeddings of 16 bits in files, complete or not there at all.

A prepared folder holds `train.latents.bin` [N, C, R, R] and `train.texts.bin` [N, L, D] (float16), the same of
`validation`, and `manifest.json`, which is written last. Captions alone have no latents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generative.data.cache import PLAN, begin, default_cache, make_once
from generative.data.captioned_config import CaptionedConfig
from generative.data.captioned_files import Captions, read_captions
from generative.data.captioned_models import Autoencoder, Published, TextEncoder, here
from generative.data.documents import listing
from generative.data.files import check_file, file_hash, write_json
from generative.data.found import Found
from generative.data.image_data import NumberFile
from generative.data.image_decode import Target, UnsuitableError, decode
from generative.data.image_headers import unsuitable
from generative.data.image_pack import resume
from generative.data.image_prepare import Progress, hold_out, some
from generative.data.manifest import MANIFEST, read_manifest
from generative.errors import DataError
from generative.randomness import Streams

FORMAT = {"format": "generative-captions", "version": 1}
HALF = "<f2"
ENCODERS = ("vae", "text_encoder", "tokenizer")
"""Parts of a pipeline that the numbers depend on."""

SHOWN = 1000
"""Captions of a split that are kept as text, to be shown beside samples."""

Tell = Callable[[int], None]


@dataclass(frozen=True)
class CaptionManifest:
    """What a prepared folder says about itself.

    Args:
        latent: (C, R, R).
        text: (L, D).
        samples: of "train" and "validation".
        hashes: of each file.
        shown: the first captions of each split.
        description: for people.
        source: what they were made from.
    """

    latent: tuple[int, ...]
    text: tuple[int, ...]
    samples: Mapping[str, int]
    hashes: Mapping[str, str]
    shown: Mapping[str, Sequence[str]]
    description: str
    source: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def read(folder: Path) -> CaptionManifest:
        """Read `manifest.json`. Raises DataError where it is missing or not of this format."""

        def parse(values: dict[str, Any]) -> CaptionManifest:
            latent, text = (tuple(values.pop(key)) for key in ("latent", "text"))
            return CaptionManifest(latent, text, **values)

        return read_manifest(folder, FORMAT, parse)

    @property
    def fingerprint(self) -> str:
        """Identity of latents and embeddings."""
        told = [self.latent, self.text, dict(self.samples), dict(self.hashes)]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def files(self, folder: Path, split: str) -> dict[str, NumberFile]:
        """ "latents", where there are some, and "texts"."""
        shapes = {"latents": self.latent, "texts": self.text}
        return {
            kind: NumberFile(folder / f"{split}.{kind}.bin", self.samples[split], shape, HALF)
            for kind, shape in shapes.items()
            if f"{split}.{kind}.bin" in self.hashes
        }

    def check(self, folder: Path, hashes: bool = False) -> None:
        """Compare the files with the manifest: their sizes, and with `hashes` every byte. Raises DataError."""
        for split in self.samples:
            for file in self.files(folder, split).values():
                size = 2 * file.count * int(np.prod(file.shape))
                check_file(file.path, size, self.hashes[file.path.name] if hashes else None)


def model_of(config: CaptionedConfig) -> Published:
    """Whose encoders are used.

    Raises:
        DataError: none is named.
    """
    if config.model is None:
        raise DataError(
            "data.model is not given: captions and images are encoded by a text-to-image model",
            "a pipeline of diffusers",
            "set data.model, or method.teacher, which it is read from",
        )
    return Published(config.model, config.revision)


def prepare_captions(
    config: CaptionedConfig, *, progress: Progress | None = None, verify: bool = False, cache: Path | None = None
) -> Path:
    """The folder of encoded captions and images; made if it is not there, at once if it is.

    An interrupted attempt goes on where it was. Arguments as for `image_prepare.prepare_images`.

    Raises:
        DataError: see `captioned_files.read_captions`; images that cannot be used; a size that does not go with the
            autoencoder; a full disk.
        CheckpointError: the model cannot be read, or is of another kind.
    """
    model, captions = model_of(config), read_captions(config)
    tell = progress or (lambda done, total: None)
    identity = _identity(config, captions)
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
    return make_once(
        (config.cache or cache or default_cache()) / key,
        lambda folder: _complete(folder, verify),
        lambda partial: _build(config, captions, model, identity, partial, tell),
    )


def _identity(config: CaptionedConfig, captions: Captions) -> dict[str, Any]:
    """All that decides about the numbers."""
    sha = hashlib.sha256("\0".join(captions.texts).encode())
    for image in captions.images or ():
        found = image.stat()
        sha.update(f"{image}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
    keys = ("model", "revision", "max_samples", "validation_fraction", *(("size",) if captions.images else ()))
    told = {key: getattr(config, key) for key in keys}
    folder = Path(config.model or "")
    if folder.is_dir():
        parts = sorted(path for part in ENCODERS for path in (folder / part).rglob("*") if path.is_file())
        told["encoders"] = listing(folder, parts)
    return {"layout": 1, "rows": sha.hexdigest(), "images": captions.images is not None, **told}


def _complete(folder: Path, verify: bool) -> bool:
    if not (folder / MANIFEST).exists():
        return False
    try:
        CaptionManifest.read(folder).check(folder, hashes=verify)
    except DataError:
        return False
    return True


def _build(
    config: CaptionedConfig,
    captions: Captions,
    model: Published,
    identity: dict[str, Any],
    partial: Path,
    progress: Progress,
) -> None:
    model.check()
    chosen = some(len(captions.texts), config.max_samples)
    rows = hold_out(chosen, config.validation_fraction, f"captions {captions.path.name}")
    total, done = sum(map(len, rows.values())), 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    begin(partial, identity)
    autoencoder = None if captions.images is None else Autoencoder(model, here())
    work = _Encoding(config, captions, TextEncoder(model, here()), autoencoder)
    for split, numbers in rows.items():
        work.write(partial, split, numbers.tolist(), tell)
    hashes = {path.name: file_hash(path) for path in sorted(partial.glob("*.bin"))}
    shown = {split: [captions.texts[i] for i in numbers[:SHOWN].tolist()] for split, numbers in rows.items()}
    samples = {split: len(numbers) for split, numbers in rows.items()}
    with_images = "" if captions.images is None else " with images"
    told = f"captions {captions.path.name}{with_images}"
    manifest = CaptionManifest(work.latent, work.text, samples, hashes, shown, told, identity)
    write_json(partial / MANIFEST, {**FORMAT, **asdict(manifest)})
    for path in (partial / PLAN, *partial.glob("*.done")):
        path.unlink(missing_ok=True)


class _Encoding:
    """Rows of a file of captions as numbers."""

    def __init__(
        self, config: CaptionedConfig, captions: Captions, encoder: TextEncoder, autoencoder: Autoencoder | None
    ) -> None:
        self.captions, self.encoder, self.autoencoder = captions, encoder, autoencoder
        self.size, self.batch = config.size, config.batch_size
        self.text = (encoder.tokens, int(encoder.network.config.hidden_size))
        self.latent: tuple[int, ...] = ()
        if autoencoder is not None:
            if config.size % autoencoder.factor:
                raise DataError(
                    f"data.size={config.size} with an autoencoder that divides sides by {autoencoder.factor}",
                    f"a multiple of {autoencoder.factor}",
                    "correct data.size",
                )
            side = config.size // autoencoder.factor
            self.latent = (autoencoder.channels, side, side)

    def write(self, folder: Path, split: str, rows: Sequence[int], tell: Tell) -> None:
        """The files of a split, from where an earlier attempt was."""
        journal = folder / f"{split}.done"
        shapes: dict[str, tuple[int, ...]] = {"texts": self.text}
        if self.autoencoder is not None:
            shapes["latents"] = self.latent
        sizes = {kind: 2 * int(np.prod(shape)) for kind, shape in shapes.items()}
        files = {kind: (folder / f"{split}.{kind}.bin").open("a+b") for kind in shapes}
        try:
            done = min(resume(files[kind], journal, sizes[kind]) for kind in files)
            for kind, file in files.items():
                file.truncate(done * sizes[kind])
            tell(done)
            for first in range(done, len(rows), self.batch):
                part = rows[first : first + self.batch]
                found = self._encoded(part)
                for kind, file in files.items():
                    file.write(np.ascontiguousarray(found[kind].half().cpu().numpy()).astype(HALF).data)
                    file.flush()
                write_json(journal, {"images": first + len(part)})
                tell(len(part))
        finally:
            for file in files.values():
                file.close()

    def _encoded(self, rows: Sequence[int]) -> dict[str, Tensor]:
        found = {"texts": self.encoder([self.captions.texts[row] for row in rows])}
        if self.autoencoder is None:
            return found
        noise = Streams(0).normal("captions/latents", torch.tensor(rows), self.latent)
        return found | {"latents": self.autoencoder.encode(self._pixels(rows), noise)}

    def _pixels(self, rows: Sequence[int]) -> Tensor:
        assert self.captions.images is not None
        target, wrong, pixels = Target(3, self.size, self.size, True, "lanczos", "white"), Found(), []
        for row in rows:
            try:
                pixels.append(torch.from_numpy(decode(self.captions.images[row], target)))
            except UnsuitableError as error:
                wrong.add(f"{self.captions.images[row]} ({error})")
        if wrong.count:
            raise unsuitable(f"captions {self.captions.path.name}", wrong, len(rows))
        return torch.stack(pixels).float() / 127.5 - 1
