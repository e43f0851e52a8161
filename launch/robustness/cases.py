"""Attempts of each kind: what is damaged, and by which commands it is then read."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random

from generative.config import config_folder, known_names
from launch.robustness.attempts import Attempt
from launch.robustness.damage import BYTES, TEXT, Damage, hostile_pickle
from launch.robustness.material import LOCAL, RUNS, SHORT, copied

Maker = Callable[[Path, Random], Attempt]
"""(folder that does not exist yet, random numbers) -> an attempt in it."""

READING = {
    "sample": ("sample", "run", "--count", "1"),
    "evaluate": ("evaluate", "run"),
    "export": ("export", "run", "--to", "out"),
    "status": ("status", "run"),
    "status as JSON": ("status", "run", "--json"),
    "logs": ("logs", "run"),
}
"""Commands that read a run."""

IMPORTED = ("masked_diffusion", "autoregressive", "mee_gan", "edm", "sgmse")


def makers(material: Mapping[str, Path]) -> dict[str, tuple[int, Maker]]:
    """Of each kind: how many of a thousand attempts, and what makes one."""
    return {
        "configuration": (400, _configuration),
        "configuration, planned": (60, _planned),
        "checkpoint": (140, partial(_checkpoint, material)),
        "record of a run": (80, partial(_record, material)),
        "foreign checkpoint": (100, partial(_foreign, material)),
        "images": (60, partial(_images, material["image"])),
        "recordings": (80, partial(_sounds, material["speech"])),
        "tokens": (60, partial(_tokens, material["text"])),
        "ledger": (60, partial(_ledger, material["campaign"])),
    }


def _damage(path: Path, kinds: Sequence[Damage], random: Random) -> None:
    path.write_bytes(random.choice(kinds)(path.read_bytes(), random))


def _one_of(paths: Sequence[Path], random: Random) -> Path:
    return random.choice(sorted(path for path in paths if path.is_file() and not path.is_symlink()))


def _text(folder: Path, random: Random) -> Path:
    """A configuration of the package with one to three mistakes."""
    folder.mkdir()
    names = [name for name in known_names() if not name.startswith(("sizes/", "machines/"))]
    data = (config_folder() / f"{random.choice(names)}.yaml").read_bytes()
    for _ in range(random.randint(1, 3)):
        data = random.choice(TEXT)(data, random)
    path = folder / "mine.yaml"
    path.write_bytes(data)
    return path


def _configuration(folder: Path, random: Random) -> Attempt:
    path = _text(folder, random)
    return Attempt("configuration", ("config", "show", path.name), folder)


def _planned(folder: Path, random: Random) -> Attempt:
    config, settings = random.choice(sorted(RUNS.values()))
    folder.mkdir()
    path = folder / "mine.yaml"
    path.write_bytes(random.choice(TEXT)((config_folder() / f"{config}.yaml").read_bytes(), random))
    return Attempt("configuration, planned", ("plan", path.name, *LOCAL, *settings), folder)


def _run(material: Mapping[str, Path], folder: Path, random: Random) -> tuple[str, Path]:
    name = random.choice(sorted(RUNS))
    return name, copied(material[name], folder) / "run"


def _reading(kind: str, name: str, folder: Path, random: Random) -> Attempt:
    verb = random.choice([*READING, "train", "enhance" if name == "speech" else "train"])
    if verb == "train":
        config, settings = RUNS[name]
        words = ("train", config, "run.dir=run", *LOCAL, *SHORT, *settings, "train.steps=6")
        return Attempt(kind, words, folder)
    if verb == "enhance":
        return Attempt(kind, ("enhance", "run", "sounds", "out"), folder, folder / "out")
    return Attempt(kind, READING[verb], folder, folder / "out" if verb == "export" else None)


def _checkpoint(material: Mapping[str, Path], folder: Path, random: Random) -> Attempt:
    name, run = _run(material, folder, random)
    newest = max(run.glob("checkpoints/step_*"))
    path = _one_of(list(newest.rglob("*")), random)
    if random.random() < 0.1:
        path.unlink()
    else:
        _damage(path, BYTES, random)
    return _reading("checkpoint", name, folder, random)


def _record(material: Mapping[str, Path], folder: Path, random: Random) -> Attempt:
    name, run = _run(material, folder, random)
    records = [path for path in run.rglob("*") if path.suffix in (".json", ".jsonl", ".yaml", ".log")]
    path = _one_of([path for path in records if "checkpoints" not in path.relative_to(run).parts], random)
    _damage(path, (*BYTES, *TEXT), random)
    return _reading("record of a run", name, folder, random)


def _foreign(material: Mapping[str, Path], folder: Path, random: Random) -> Attempt:
    folder.mkdir()
    weights = next(material["text"].glob("run/checkpoints/step_*/*.safetensors"), None)
    kind = random.choice(["hostile", "pickle", "safetensors", "noise"])
    if kind == "hostile":
        path, data = folder / random.choice(["weights.pt", "weights.pkl", "weights.ckpt"]), hostile_pickle()
    elif kind == "pickle":
        values = random.choice([{"state_dict": {}}, {"ema": {"a": 1}}, [1, 2], "text", {1: {2: 3}}])
        path, data = folder / "weights.pth", random.choice(BYTES)(pickle.dumps(values), random)
    elif kind == "safetensors" and weights is not None:
        path, data = folder / "weights.safetensors", random.choice(BYTES)(weights.read_bytes(), random)
    else:
        path, data = folder / "weights.bin", random.randbytes(random.randint(0, 3000))
    path.write_bytes(data)
    verb = random.choice(["import", "import", "import", "enhance", "erase", "restore"])
    out = folder / "out"
    if verb == "import":
        words: tuple[str, ...] = ("import", path.name, "--out", "out", "--method", random.choice(IMPORTED))
    elif verb == "erase":
        words = ("erase", path.name, "--concept", "a", "--guide", "b", "--out", "out")
    else:
        words = (verb, path.name, path.name, "out")
    return Attempt("foreign checkpoint", words, folder, out)


def _images(material: Path, folder: Path, random: Random) -> Attempt:
    copied(material, folder)
    for _ in range(random.randint(1, 3)):
        _damage(_one_of(list((folder / "images").iterdir()), random), BYTES, random)
    if random.random() < 0.5:
        words = ("restore", "run", "images", "out", "--simulate", "--samples", "1", "--operator", "superres:factor=2")
        return Attempt("images", (*words, "--set", "steps=2"), folder, folder / "out")
    _, settings = RUNS["image"]
    prepared = tuple(one for one in settings if not one.startswith("data="))
    data = "data={name: folder, path: images, size: 8, channels: 1, cache: another}"
    return Attempt("images", ("data", "prepare", "edm/quickstart", data, *prepared), folder)


def _sounds(material: Path, folder: Path, random: Random) -> Attempt:
    copied(material, folder)
    for _ in range(random.randint(1, 3)):
        _damage(_one_of(list((folder / "sounds").iterdir()), random), BYTES, random)
    if random.random() < 0.7:
        return Attempt("recordings", ("enhance", "run", "sounds", "out"), folder, folder / "out")
    data = "data={name: mix, speech: sounds, noise: sounds, sample_rate: 8000, length: 1984, cache: another}"
    return Attempt("recordings", ("data", "prepare", "sgmse/quickstart", data), folder)


def _tokens(material: Path, folder: Path, random: Random) -> Attempt:
    copied(material, folder)
    _damage(_one_of(list((folder / "cache").rglob("*")), random), BYTES, random)
    config, settings = RUNS["text"]
    if random.random() < 0.5:
        return Attempt("tokens", ("data", "prepare", config, *settings, "--verify"), folder)
    return _reading("tokens", "text", folder, random)


def _ledger(material: Path, folder: Path, random: Random) -> Attempt:
    copied(material, folder)
    records = [
        folder / "campaign.yaml",
        *(folder / "campaign").glob("*.json*"),
        *(folder / "campaign").glob("*/*.json"),
    ]
    _damage(_one_of(records, random), (*BYTES, *TEXT), random)
    verb = random.choice(["status", "report", "plan", "run", "predict"])
    further = ("--flops", "1e9") if verb == "predict" else ()
    return Attempt("ledger", ("campaign", verb, "campaign.yaml", *further), folder)
