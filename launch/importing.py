"""`generative import`: somebody's weights as a folder that runs can start from, in the layout of our own exports."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from generative import __version__
from generative.errors import CheckpointError, ConfigError
from generative.hub.card import Card, start_from
from generative.hub.export import Export
from generative.hub.files import parse_size
from generative.hub.folder import check_target
from generative.hub.published import READERS, Reader, check_file, choose_reader, find_files
from generative.hub.published_model import Published
from generative.hub.published_priors import PRIORS
from generative.hub.tensors import InMemory
from generative.hub_names import HUB
from generative.training.exported import MODEL_TYPE
from generative.training.networks import compare_weights
from launch.import_prior import import_prior

MOST_FILES = 12
"""Names of a folder's files that a message lists."""

Say = Callable[[str, str], None]
"""Hears lines: (label, text)."""


@dataclass(frozen=True)
class Asked:
    """What the command line asks for; see `launch.import_cli`."""

    source: str
    file: str | None = None
    method: str | None = None
    revision: str | None = None
    max_shard: str = "5GB"
    force: bool = False
    as_trained: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


def import_weights(asked: Asked, to: str | Path, say: Say) -> list[Path]:
    """Read published weights, check every tensor, and write the folder; the files that were written.

    Raises:
        ConfigError, CheckpointError, ResourceError: before anything is written, or nothing is left.
    """
    target, most = Path(to).expanduser().resolve(), parse_size(asked.max_shard)
    check_target(target, asked.force)
    if asked.method is not None and asked.method in PRIORS:
        file = only_file(asked)
        return import_prior(file, asked.method, asked.source, target, asked.settings, asked.as_trained, say)
    if asked.settings:
        raise ConfigError(
            f"--set {next(iter(asked.settings))} with weights that tell all of themselves",
            f"--set with --method {' or '.join(PRIORS)}",
            "leave out --set",
        )
    files, reader = locate(asked)
    say("read", ", ".join(map(str, files)))
    found = reader.read(files)
    found = found.as_trained() if asked.as_trained else found
    check(found, files)
    tensors = stored_tensors(found.networks)
    source = InMemory(tensors)
    parts = ", ".join(f"{name} ({len(state)} tensors)" for name, state in found.networks.items())
    say("import", f"{found.kind} for samples {_samples(found)}: {parts}")
    export = Export(source, source.saved(), architecture(found, asked, files), _card(found, asked, files, target.name))
    return export.write(target, most, asked.force)


def locate(asked: Asked) -> tuple[list[Path], Reader]:
    """The files, fetched where they are on the hub, and what reads them.

    Raises:
        ConfigError: a method or file is not named.
        CheckpointError: there is no such file, or it cannot be fetched.
    """
    if asked.method is not None and READERS[asked.method].folder:
        reader, path = READERS[asked.method], Path(asked.source).expanduser()
        if asked.source.startswith(HUB):
            path = fetch_folder(asked.source.removeprefix(HUB), asked.revision)
        return find_files(path, reader), reader
    if not asked.source.startswith(HUB):
        path = only_file(asked)
        reader = choose_reader(path.name, asked.method)
        return find_files(path, reader), reader
    if asked.file is None:
        raise _unnamed(asked.source)
    name = Path(asked.file)
    reader = choose_reader(name.name, asked.method)
    repository = asked.source.removeprefix(HUB)
    other = reader.companion(name.name)
    found = [fetch(repository, asked.file, asked.revision)]
    if other is not None:
        found.append(fetch(repository, str(name.with_name(other)), asked.revision, needed=False))
    return [path for path in found if path is not None], reader


def only_file(asked: Asked) -> Path:
    """The file, fetched where it is on the hub; errors as `locate`."""
    if asked.source.startswith(HUB):
        if asked.file is None:
            raise _unnamed(asked.source)
        found = fetch(asked.source.removeprefix(HUB), asked.file, asked.revision)
        assert found is not None
        return found
    path = Path(asked.source).expanduser()
    path = path / asked.file if asked.file else path
    if path.is_dir():
        raise _unnamed(str(path), sorted(each.name for each in path.iterdir() if each.is_file()))
    check_file(path)
    return path


def _unnamed(place: str, files: Sequence[str] = ()) -> ConfigError:
    known = f"one of {', '.join(files[:MOST_FILES])}" if files else "the name of a file in it"
    return ConfigError(f"{place}: which of its files?", known, "give --file NAME")


def fetch(repository: str, file: str, revision: str | None, needed: bool = True) -> Path | None:
    """A file of a repository on the hub, in the local cache; None if it is not there and not `needed`.

    Raises:
        CheckpointError: it cannot be fetched.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise CheckpointError(
            f"{HUB}{repository} needs the package huggingface_hub, which is not installed",
            "an installation with it, or a file on this machine",
            "pip install 'generative[hub]'",
        ) from error
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except Exception as error:  # network, permissions, unknown names: many kinds, one meaning
        if not needed and isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(
            f"{HUB}{repository}, file {file}: {reason}",
            "a repository and a file of it that can be reached",
            "correct the id, --file or --revision; or download the file yourself, and give its path",
        ) from error


def fetch_folder(repository: str, revision: str | None) -> Path:
    """Configurations, tokenizer and weights of a repository on the hub, in the local cache; errors as `fetch`.

    Without a network huggingface_hub gives what it has, which may be config.json alone: that is refused.
    """
    described = fetch(repository, "config.json", revision)
    assert described is not None
    from huggingface_hub import snapshot_download

    try:
        found = Path(snapshot_download(repository, revision=revision, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # as in `fetch`
        raise CheckpointError(
            f"{HUB}{repository}: {next(iter(str(error).strip().splitlines()), type(error).__name__)}",
            "a repository that can be reached",
            "correct the id or --revision; or download the files yourself, and give their folder",
        ) from error
    if next(found.rglob("*.safetensors"), None) is None:
        raise CheckpointError(
            f"{HUB}{repository}: no weights came from there",
            "a repository with weights (*.safetensors) that can be reached",
            "check the network (and HF_HUB_OFFLINE), and give the same command again; pickles (.bin) are not read here",
        )
    return found


def check(found: Published, files: Sequence[Path]) -> None:
    """Every tensor of every network must be there, and nothing else; raises CheckpointError with what differs."""
    for name, module in found.modules().items():
        shapes = {key: tuple(tensor.shape) for key, tensor in found.networks[name].items()}
        compare_weights(module, shapes, f"{', '.join(file.name for file in files)} ({name})")


def stored_tensors(networks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Names in the folder's files: of a single network its own, of several with the network's name before them."""
    if len(networks) == 1:
        return dict(next(iter(networks.values())))
    return {f"{name}/{key}": tensor for name, state in networks.items() for key, tensor in state.items()}


def architecture(found: Published, asked: Asked, files: Sequence[Path]) -> dict[str, Any]:
    """config.json: what builds the networks again, and where the weights come from."""
    names = list(found.networks)
    return {
        "architectures": [type(module).__name__ for module in found.modules().values()],
        "model_type": MODEL_TYPE,
        "generative_version": __version__,
        **({"network": names[0]} if len(names) == 1 else {"networks": names}),
        "weights": "published averages" if found.trained else "published",
        "method": found.method.model_dump(mode="json"),
        "facts": dataclasses.asdict(found.facts),
        "source": {"from": asked.source, "files": {file.name: _digest(file) for file in files}},
    }


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return "sha256:" + hashlib.file_digest(opened, "sha256").hexdigest()


def _samples(found: Published) -> str:
    shape = found.facts.sample_shape
    return f"of shape {list(shape)}" if shape else f"of at most {found.facts.sequence_length} tokens"


def _card(found: Published, asked: Asked, files: Sequence[Path], title: str) -> Card:
    count = sum(parameter.numel() for module in found.modules().values() for parameter in module.parameters())
    alone = next(iter(found.networks)) if len(found.networks) < len(found.build) else None
    return Card(
        title=title,
        summary=f"Published weights of {found.kind} ({count:,} parameters), imported with `generative`.",
        library="generative",
        task=found.task,
        tags=["generative", found.kind.replace("_", "-")],
        training={"source": asked.source, "files": ", ".join(file.name for file in files)},
        command="",
        figures=[],
        measured="",
        usage=start_from(title, alone),
        notes=["these weights were trained elsewhere, and the licence of their publisher holds"],
    )
