"""Images that are restored: which, where results go, and how they are read."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from generative.data.image_decode import SUFFIXES, Target, UnsuitableError, decode
from generative.errors import ConfigError, DataError
from launch.enhance_files import File

RECORD, REPORT, HELD_OUT = "restore.jsonl", "report.html", "held_out"
"""HELD_OUT as IN: held-out images of the prior's own data, which are put into a folder of that name in OUT."""


def list_images(source: Path, target: Path) -> list[File]:
    """What is to be restored; the results of an image are a folder of its own below `target`.

    Raises:
        DataError, ConfigError: nothing there, results inside the source, or two images whose results are one.
    """
    if target.is_file():
        raise ConfigError(f"{target} is a file", "a folder for the results", "name another as OUT")
    if source.is_dir():
        if target.resolve() == source.resolve():
            raise ConfigError(f"{target}: the results would lie among the images", "another folder", "name one as OUT")
        inside = target.resolve() if source.resolve() in target.resolve().parents else None
        found = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
        paths = [path for path in found if inside is None or inside not in path.resolve().parents]
        names = [path.relative_to(source).as_posix() for path in paths]
    elif source.is_file() and source.suffix.lower() in SUFFIXES:
        paths, names = [source], [source.name]
    else:
        raise DataError(f"{source}: no image and no folder", f"a file of {', '.join(SUFFIXES)}", "correct IN")
    if not paths:
        raise DataError(f"{source} holds no image", f"files of {', '.join(SUFFIXES)}", "correct IN")
    files = [File(name, path, target / Path(name).with_suffix("")) for name, path in zip(names, paths, strict=True)]
    doubled = next((f for i, f in enumerate(files) if f.target in {g.target for g in files[:i]}), None)
    if doubled is not None:
        raise ConfigError(
            f"{doubled.name}: another image has the same name with another ending", "names that differ", "rename one"
        )
    return files


def read_image(path: Path, shape: tuple[int, ...], resize: bool = False) -> Tensor:
    """Pixels float32[C, H, W] in [-1, 1].

    Raises:
        DataError: the image cannot be read, or has another size.
    """
    channels, height, width = shape
    if channels not in (1, 3):
        raise DataError(
            f"a prior of {channels} channels", "1 (gray) or 3 (RGB), that files can hold", "take another prior"
        )
    try:
        found = decode(path, Target(channels, height, width, resize, background="white"))
    except UnsuitableError as error:
        hint = "give --resize, or images of that size" if not resize else "give another image"
        raise DataError(str(error), f"an image of {width} x {height} pixels", hint) from error
    return torch.tensor(found).float() / 127.5 - 1
