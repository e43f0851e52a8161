"""The commands of the pages: those that take a moment are run, all others are parsed and their settings loaded."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from generative.config import known_names
from generative.errors import GenerativeError
from launch.asked import asked_launch
from launch.cli import command as root
from launch.cli import main
from launch.schema import load_run_config
from launch.sections import LaunchConfig
from tests.support.documents import PAGES, ROOMS, ROOT, Told, commands

TOLD = list(dict.fromkeys(told for page in (*PAGES, *ROOMS) for told in commands(page)))
RUNS = sorted(name for name in known_names() if name.endswith("/quickstart"))
"""Stand in for CONFIG and RUN: a setting must be one of some method's."""

Command = Any
"""A command of typer's parser."""


def verb_of(told: Told) -> tuple[Command, list[str], list[str]]:
    """The command that is named, its name ("campaign plan", as words), and the words after it."""
    command, words, verb = root(), list(told.words), []
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        # A synopsis may name several: list|status|logs.
        for one in name.split("|"):
            assert one in command.commands, f"{told}: no command {one}"
        command = command.commands[name.split("|")[0]]
        verb.append(command.name)
    return command, verb, words


def parsed(told: Told) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the command, as the program itself reads them."""
    command, verb, words = verb_of(told)
    return " ".join(verb), command.make_context(verb[-1], words).params


def is_whole(told: Told) -> bool:
    """It can be given as it stands: no synopsis with brackets, and no command that is only named in running text."""
    return told.exact and not (told.in_text and not verb_of(told)[2])


def _ids(told: Told) -> str:
    return str(told)[:90]


WHOLE = [told for told in TOLD if is_whole(told)]


@pytest.mark.parametrize("told", [told for told in TOLD if not is_whole(told)], ids=_ids)
def test_a_synopsis_names_a_command_and_its_options(told: Told) -> None:
    command, _, words = verb_of(told)
    options = {option for parameter in command.params for option in parameter.opts}
    for option in re.findall(r"--[a-z][-a-z]*", " ".join(words)):
        assert option in options or option == "--help", f"{told}: no option {option}"


@pytest.mark.parametrize("told", [told for told in WHOLE if "--help" not in told.words], ids=_ids)
def test_a_command_is_understood(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # runs of whoever tests are not looked at
    verb, given = parsed(told)
    CHECKS.get(verb, _nothing_more)(given)


@pytest.mark.parametrize("verb", sorted({" ".join(verb_of(told)[1]) for told in TOLD}))
def test_every_command_that_is_named_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb.split(), "--help"]) == 0
    assert f"Usage: generative {verb}" in capsys.readouterr().out


def of_a_moment(told: Told) -> bool:
    """It says what would be done, in seconds and without a network."""
    verb = " ".join(verb_of(told)[1])
    planned = verb == "plan" and "masked_diffusion/quickstart" in told.words
    shown = verb in ("config list", "config schema") or (verb == "config show" and "CONFIG" not in told.words)
    return planned or shown or (verb == "submit" and "--dry-run" in told.words)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("told", [told for told in WHOLE if of_a_moment(told)], ids=_ids)
def test_a_command_that_takes_a_moment_runs(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(list(told.words)) == 0
    assert capsys.readouterr().out.strip()
    assert not list(tmp_path.iterdir())


def test_the_readme_names_every_command_and_benchmark() -> None:
    from launch.benchmarks import ALL

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in root().commands if f"`generative {name} " not in readme] == []
    assert [name for name in ALL if f"`{name}`" not in readme] == []


def test_extras_and_targets_that_are_named_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in (*PAGES, *ROOMS))
    named = {extra for group in re.findall(r"(?:generative|'\.)\[([a-z,-]+)\]", text) for extra in group.split(",")}
    assert {"speech", "erase", "lm-eval"} <= named
    assert named <= extras.keys()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)) <= targets


# ---------------------------------------------------------------------- settings


def _nothing_more(given: dict[str, Any]) -> None:
    """The parser has seen all."""


def _loads(config: str, overrides: list[str]) -> None:
    """A configuration of the package with these settings; for a placeholder, any quickstart that takes them."""
    if "/" in config and config != config.upper():
        load_run_config(config, overrides)
        return
    told = []
    for quickstart in RUNS:
        try:
            load_run_config(quickstart, overrides)
            return
        except GenerativeError as error:
            told.append(f"{quickstart}: {error.problem}")
    raise AssertionError("\n".join(told))


def _run(given: dict[str, Any]) -> None:
    _loads(given["config"], given["overrides"] or [])


def _submit(given: dict[str, Any]) -> None:
    from launch.clusters import load_cluster
    from launch.submit import split

    words, name, overrides = split(given["words"] or [])
    load_cluster(None if name == "mine.yaml" else name, given["backend"], overrides)
    _loads(given["config"], words)


def _of_run(given: dict[str, Any]) -> None:
    overrides = given["overrides"] or []
    if given.get("suite"):
        from evaluation.harness.suite import load_suite

        own = [text.removeprefix("suite.") for text in overrides if text.startswith("suite.")]
        overrides = [text for text in overrides if not text.startswith("suite.")]
        for name in given["suite"].split("|"):
            load_suite("paper-zero-shot" if name.endswith(".yaml") or name.isupper() else name, own)
    known = given["run"].removeprefix("runs/").removesuffix("/best")
    _loads(known if known in known_names() else "RUN", overrides)


def _launch_only(given: dict[str, Any]) -> None:
    asked_launch(LaunchConfig(), given["overrides"] or [], None)


def _enhance(given: dict[str, Any]) -> None:
    words = [f"method.sampling.sampler={given['sampler']}"] if given["sampler"] else []
    load_run_config("sgmse/quickstart", [*words, *(given["overrides"] or [])])


def _restore(given: dict[str, Any]) -> None:
    from generative.methods.stsl.methods import method_named, with_changes
    from launch.asked import settings_of

    _launch_only(given)
    _operator(given["operator"])
    with_changes(method_named(given["method"]).settings, settings_of(given["settings"]))


def _operator(text: str | None) -> None:
    from generative.methods.stsl.operators.catalogue import make_operator

    if text is not None:
        make_operator(text, (3, 64, 64))


def _erase(given: dict[str, Any]) -> None:
    from generative.methods.rece.config import PRESETS

    assert given["preset"] in PRESETS


def _measure(given: dict[str, Any]) -> None:
    from evaluation.erasure.opening import DETECTORS

    assert given["detector"] == "NAME" or given["detector"].partition(":")[0] in DETECTORS


def _import(given: dict[str, Any]) -> None:
    from generative.hub.published import READERS
    from generative.hub.published_priors import PRIORS

    assert given["method"] in (None, "NAME", *READERS, *PRIORS)


def _campaign(given: dict[str, Any]) -> None:
    from launch.campaign.schema import load_campaign

    load_campaign("campaign/smdm" if given["config"] == "CONFIG" else given["config"], given["overrides"] or [])


def _bench(given: dict[str, Any]) -> None:
    from launch.benchmarks import ALL

    assert given["name"] in ("NAME", "all", *ALL)


CHECKS = {
    **dict.fromkeys(("train", "plan", "chaos", "config show", "data prepare"), _run),
    **dict.fromkeys([f"campaign {verb}" for verb in ("plan", "run", "status", "report", "predict")], _campaign),
    "submit": _submit,
    "sample": _of_run,
    "evaluate": _of_run,
    "enhance": _enhance,
    "restore": _restore,
    "edit": lambda given: _operator(given["operator"]),
    "erase": _erase,
    "measure-erasure": _measure,
    "import": _import,
    "bench": _bench,
}
"""What is checked of a command besides its options."""
