"""`generative export`: what is known of a run, put together for `generative.hub`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from generative import __version__
from generative.data.config import HubTextConfig, ShardsTextConfig, TextDataConfig
from generative.data.text import open_text
from generative.data.tokenizers import Tokenizer, open_tokenizer
from generative.errors import ConfigError, GenerativeError
from generative.hub import llama
from generative.hub.export import Export, choose_average, choose_network
from generative.hub.files import parse_size, total_bytes
from generative.hub.folder import check_target
from generative.hub.released import RELEASED, write_released
from generative.hub.tensors import DTYPES
from generative.method import Average, DataFacts, Method
from generative.training.checkpoint import Checkpoint, open_checkpoint
from generative.training.exported import MODEL_TYPE
from generative.training.networks import compare_weights, weight_names
from launch.afterwards import Afterwards, asked_width
from launch.export_card import make_card, masked_notes
from launch.export_pipeline import check_expressible, export_components, export_pipeline, has_components, kl_vae_scale
from launch.export_weights import changes_of, export_adapter, weights_of
from launch.modality import build_method
from launch.opened import kept_as_best, read_config, run_folder_of
from launch.schema import RunConfig

Layout = Literal["generative", "llama", "peft", "released", "diffusers"]
Say = Callable[[str, str], None]
"""Hears lines: (label, text)."""
Progress = Callable[[int, int], None]

NO_RELEASED = {
    "edm": "EDM's files are pickles with the source text of their classes in them, which are read here but not written",
    "f_distill": "its released code has checkpoints of all networks and optimizers, as pickles",
}
"""Methods whose released files cannot be written, and why."""

DROPPED = {"released": ("network", "dtype", "max_shard"), "peft": ("max_shard",), "diffusers": ("max_shard",)}
"""Options that a layout does not have."""

WRITTEN = {
    "network": "no name, since all networks of the released code are written",
    "dtype": "fp32",
    "max_shard": "no size, since its files are whole",
}
"""What such a layout has in the place of an option."""

OLD_STATISTICS = "running statistics of batch normalisation are those of training, not of the averaged weights"


@dataclass(frozen=True)
class Asked:
    """What the command line asks for; see `launch.export_cli`."""

    network: str | None = None
    weights: str | None = None
    """None: those that the run's samples are drawn with."""
    dtype: str = "fp32"
    max_shard: str = "5GB"
    layout: Layout = "generative"
    force: bool = False


@dataclass(frozen=True)
class Subject:
    """The network that is exported, and where it comes from."""

    folder: Path
    config: RunConfig
    checkpoint: Checkpoint
    method: Method
    facts: DataFacts
    network: str
    average: Average | None
    module: nn.Module
    """On the meta device."""
    afterwards: Afterwards | None = None
    """The average that is made of those that are kept."""

    @property
    def one_of_several(self) -> str | None:
        """Name of the network, where the method trains others too."""
        return self.network if len(trained_networks(self.method)) > 1 else None

    @property
    def worn(self) -> str:
        """Name of the weights, as in evaluation.json."""
        kept = kept_as_best(self.checkpoint)
        if kept is not None:
            return kept
        if self.afterwards is not None:
            return self.afterwards.name(self.network)
        return "trained" if self.average is None else f"ema {self.average}"


def export_run(path: str | Path, to: str | Path, asked: Asked, say: Say, progress: Progress) -> list[Path]:
    """Export a run's newest checkpoint, or the one given; the files that were written.

    Args:
        path: run folder or checkpoint folder.
        to: folder to make.
        asked: options.
        say: told what is exported, and what to know about it.
        progress: told the bytes that are written, and all.

    Raises:
        ConfigError, RunFolderError, CheckpointError, ResourceError: before anything is written, or nothing is left.
    """
    target, most = Path(to).expanduser().resolve(), parse_size(asked.max_shard)
    refuse_dropped(asked, DROPPED.get(asked.layout, ()))
    check_target(target, None if asked.layout == "diffusers" else asked.force)
    if asked.layout == "released":
        return export_released(Path(path), target, asked, say)
    subject = open_subject(Path(path), asked, say)
    if asked.layout == "diffusers" and has_components(subject):
        refuse_dropped(asked, ["dtype"])
        return export_components(subject, target, say)
    if asked.layout == "diffusers":
        check_expressible(subject)
    if asked.layout == "peft":
        say("export", f"changes of {subject.worn} weights of step {subject.checkpoint.step} as {asked.dtype}")
        return export_adapter(subject, asked, target)
    export, notes = plan(subject, asked, target.name)
    total = total_bytes({"": list(export.tensors)})
    names = f"{len(export.tensors)} tensors, {total / 1e6:,.1f} MB"
    say("export", f"{subject.worn} weights of step {subject.checkpoint.step} as {asked.dtype}: {names}")
    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    if asked.layout == "diffusers":
        written = export_pipeline(subject, export.source, [*export.tensors], export.card, target, on_bytes)
    else:
        written = export.write(target, most, asked.force, on_bytes)
    for note in notes:
        say("note", note)
    return written


def refuse_dropped(asked: Asked, names: Sequence[str]) -> None:
    """Refuse options that would do nothing, where one is given; raises ConfigError."""
    for name in names:
        given, option = getattr(asked, name), f"--{name.replace('_', '-')}"
        if given != getattr(Asked, name):
            raise ConfigError(
                f"{option} {given} with --layout {asked.layout}, which has no such choice",
                WRITTEN[name],
                f"leave out {option}, or use --layout generative",
            )


def export_released(path: Path, target: Path, asked: Asked, say: Say) -> list[Path]:
    """Write the networks of a run or checkpoint as the released code of its method reads them; errors as above."""
    config = read_config(run_folder_of(path))
    method: Any = config.method
    if method.name in NO_RELEASED:
        raise ConfigError(
            f"--layout released: {NO_RELEASED[method.name]}",
            f"a method with released files of plain tensors: {', '.join(RELEASED)}",
            "leave out --layout: model.safetensors then has the released networks' own parameter names",
        )
    files_of = RELEASED[method.name]
    checkpoint = open_checkpoint(path, on_event=lambda kind, step, message: say(kind, message))
    average = choose_average(method.ema, asked.weights or sampled_weights(config, method.ema, checkpoint))
    written = write_released(target, files_of(method, checkpoint, average), asked.force)
    worn = "trained" if average is None else f"ema {average}"
    say("export", f"{worn} weights of step {checkpoint.step} as {', '.join(file.name for file in written)}")
    if average is not None and any("running_mean" in name for name in checkpoint.names()):
        say("note", OLD_STATISTICS)
    return written


def open_subject(path: Path, asked: Asked, say: Say) -> Subject:
    """Find the network, and make sure that the checkpoint has it, whole."""
    folder = run_folder_of(path)
    config = read_config(folder)
    say("check", f"{path}: files against their hashes")
    checkpoint = open_checkpoint(path, on_event=lambda kind, step, message: say(kind, message))
    facts = DataFacts(**checkpoint.meta.get("facts", {}))
    method = build_method(config, facts)
    specs = method.networks()
    network = choose_network(trained_networks(method), asked.network or getattr(method, "product", None))
    weights = asked.weights or sampled_weights(config, specs[network].ema, checkpoint)
    width = asked_width(weights)
    afterwards = None if width is None else Afterwards.of(checkpoint, width)
    average = None if afterwards else choose_average(specs[network].ema, weights)
    with torch.device("meta"):
        module = specs[network].build()
    names = weight_names(checkpoint, network, average)
    compare_weights(module, {ours: checkpoint.shape(full) for ours, full in names.items()}, str(checkpoint.path))
    return Subject(folder, config, checkpoint, method, facts, network, average, module, afterwards)


def sampled_weights(config: RunConfig, kept: Sequence[Average], checkpoint: Checkpoint) -> str:
    """What `sample.weights` of the run says; the weights as trained where there are no averages of them."""
    weights = str(getattr(config.sample, "weights", "trained"))
    return "trained" if not kept or kept_as_best(checkpoint) is not None else weights


def trained_networks(method: Method) -> list[str]:
    """Names of the networks that a method trains."""
    return [name for name, spec in method.networks().items() if spec.trainable]


def plan(subject: Subject, asked: Asked, title: str) -> tuple[Export, list[str]]:
    """What is to be written, and what to know about it; `title` is the name of the model."""
    sizes = llama.llama_sizes(subject.module) if asked.layout == "llama" else None
    dtype = DTYPES[asked.dtype]
    tensors, source = weights_of(subject, dtype)
    tokenizer, missing = find_tokenizer(subject)
    notes, generation = [missing] if missing else [], {}
    if subject.average is not None and any(tensor.name.endswith("running_mean") for tensor in tensors):
        notes.append(OLD_STATISTICS)
    described = {"torch_dtype": str(dtype).removeprefix("torch.")}
    if sizes is None:
        described = architecture(subject) | described
    else:
        eos, mask = tokenizer.eos_id if tokenizer else None, llama.has_mask_row(subject.module)
        tensors, source = llama.llama_tensors(tensors, source, sizes, mask)
        described = llama.llama_config(sizes, eos, mask) | described
        generation = {} if mask else llama.generation_config(sizes, eos)
        notes = [*notes, *llama.llama_notes(sizes), *masked_notes(subject.config.method)]
    card = make_card(subject, asked, title, tokenizer, notes)
    return Export(source, tensors, described, card, generation, tokenizer), notes


def architecture(subject: Subject) -> dict[str, Any]:
    """config.json: what builds the network again, `METHODS[name].build(method, facts).networks()[network]`."""
    method = subject.config.method.model_dump(mode="json")
    method |= {
        key: None for key in ("init_from", "teacher", "teacher_config", *merged_settings(subject)) if key in method
    }  # paths of this machine
    if isinstance(method.get("latents"), dict):
        method["latents"] |= {"autoencoder": None, "autoencoder_config": None}
    if method["name"] == "kl_vae":
        method["scaling_factor"] = kl_vae_scale(subject)
    sizes = getattr(subject.method, "network", None)
    if sizes is not None:
        method["network"] = sizes.model_dump(mode="json")
    return {
        "architectures": [type(subject.module).__name__],
        "model_type": MODEL_TYPE,
        "generative_version": __version__,
        "network": subject.network,
        "weights": subject.worn,
        "step": subject.checkpoint.step,
        "method": method,
        "facts": dataclasses.asdict(subject.facts),
    }


def merged_settings(subject: Subject) -> list[str]:
    """Settings that an exported network is not built by any more: changes of low rank are merged."""
    return ["lora"] if changes_of(subject) else []


def find_tokenizer(subject: Subject) -> tuple[Tokenizer | None, str]:
    """The tokenizer of the run's text, or None and why it is left out ("" where there is no text).

    Most lie with the prepared text, which may be gone by now: weights are worth having all the same. No data set is
    fetched for a tokenizer that can be had without it.
    """
    data = subject.config.data
    if subject.config.kind != "text":
        return None, ""
    try:
        found = _tokenizer_alone(data) or open_text(data).tokenizer
    except GenerativeError as error:
        return None, f"the tokenizer is left out: {error.problem}"
    if found.vocab_size != subject.facts.vocab_size:
        known = subject.facts.vocab_size
        return None, f"the tokenizer is left out: the data has {found.vocab_size} tokens now, not {known} as trained"
    return found, ""


def _tokenizer_alone(data: TextDataConfig) -> Tokenizer | None:
    """The tokenizer of a configuration, where its text is not needed to know it, or would have to be fetched."""
    named = isinstance(data, HubTextConfig) and data.tokenizer.name == "huggingface"
    made = data.tokenizer.name == "bytes" and not isinstance(data, ShardsTextConfig)
    return open_tokenizer(data.tokenizer) if named or made else None
