"""A folder onto the Hugging Face hub, as one commit. What is sent can be loaded without running code from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generative.errors import ConfigError, ResourceError

SENT = (".safetensors", ".json", ".md", ".txt", ".model", ".jinja", ".png", ".svg", ".html", ".yaml")
"""What files of a model end with. Others could hold code: pickles (.bin, .pt, .pth, .ckpt, .pkl) and programs (.py)."""

DESCRIBED = ("config.json", "adapter_config.json", "model_index.json")
"""One of these says what a folder holds."""

UNLICENSED = "# license:"
"""In a card that we wrote, as long as nobody has chosen a licence."""


@dataclass(frozen=True)
class Pushed:
    """What was sent.

    Args:
        url: of the commit.
        files: paths in the repository.
        size: bytes of all of them.
    """

    url: str
    files: list[str]
    size: int


def files_to_push(folder: Path) -> list[Path]:
    """The files of a folder, hidden ones left out, sorted.

    Raises:
        ConfigError: there is none; it is no model, or has files that could hold code.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: no such folder",
            "a folder that `generative export` or `import` wrote",
            "correct the path",
        )
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not any((folder / name).is_file() for name in DESCRIBED):
        raise ConfigError(
            f"{folder} holds no model: none of {', '.join(DESCRIBED)} is in it",
            "a folder that `generative export` or `import` wrote",
            "export the run first: generative export RUN --out FOLDER",
        )
    others = [str(path.relative_to(folder)) for path in files if path.suffix not in SENT]
    if others:
        raise ConfigError(
            f"{folder} has files that are not sent, since those who load them could run code in them: "
            f"{', '.join(others[:5])}{' ...' if len(others) > 5 else ''}",
            f"files that end with {', '.join(SENT)}",
            "take them out of the folder; weights as safetensors",
        )
    return files


def push(
    folder: str | Path,
    repository: str,
    *,
    private: bool = False,
    message: str = "Upload a model by generative",
    endpoint: str | None = None,
    say: Callable[[str, str], None] = lambda label, text: None,
) -> Pushed:
    """Make the repository where it is not there yet, and send a folder's files as one commit.

    The token is the one of huggingface_hub (HF_TOKEN, or `hf auth login`); it is never written or shown.

    Args:
        folder: see `files_to_push`.
        repository: OWNER/NAME.
        private: of a repository that is made.
        message: of the commit.
        endpoint: of another hub (None: HF_ENDPOINT, or https://huggingface.co).
        say: told what is sent, and what to know about it.

    Raises:
        ConfigError: see `files_to_push`; a name that the hub does not allow; no token.
        ResourceError: the hub refuses, or cannot be reached.
    """
    root, hub = Path(folder), _hub()
    files = files_to_push(root)
    _check_name(repository)
    token = hub.get_token()
    if token is None:
        raise ConfigError(
            f"{repository}: no token of the hub on this machine",
            "a token that may write",
            "set the variable HF_TOKEN, or log in: hf auth login",
        )
    names, size = [path.relative_to(root).as_posix() for path in files], sum(path.stat().st_size for path in files)
    say("push", f"{len(files)} files, {size / 1e6:,.1f} MB, to {repository}")
    card = root / "README.md"
    if not card.is_file() or UNLICENSED in card.read_text(encoding="utf-8"):
        say("note", "the model card states no licence; choose one, and set `license` at the top of README.md")
    api = hub.HfApi(endpoint=endpoint, token=token)
    try:
        api.create_repo(repository, private=private or None, exist_ok=True)
        operations = [hub.CommitOperationAdd(name, str(path)) for name, path in zip(names, files, strict=True)]
        commit = api.create_commit(repository, operations, commit_message=message)
    except Exception as error:  # network, permissions, refusals: many kinds, one meaning
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).replace(token, "(token)")
        raise ResourceError(
            f"{repository} cannot be pushed to: {reason}",
            "a hub that can be reached, and a token that may write to the repository",
            "check the network, the name and the token's rights (hf auth whoami), and give the same command again",
        ) from (None if token in str(error) else error)
    return Pushed(str(commit.commit_url).replace(token, "(token)"), names, size)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            "push needs the package huggingface_hub, which is not installed",
            "an installation with it",
            "pip install 'generative[hub]'",
        ) from error
    return huggingface_hub


def _check_name(repository: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"{repository!r} is no name of a repository", "OWNER/NAME", str(error)) from error
    if "/" not in repository:
        raise ConfigError(f"{repository!r} is no name of a repository: whose?", "OWNER/NAME", "put the owner before it")
