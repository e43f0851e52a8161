"""The model card of an exported run: what was trained on what, for how long, and how well it does."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.ngram import NAMES
from evaluation.quantities import compact
from generative.data.tokenizers import Tokenizer
from generative.hub.card import Card, start_from, task_of
from generative.nets.transformer_config import TransformerConfig
from generative.training.runfolder import read_lines
from launch.folder import read_json
from launch.modality import modality
from launch.results import figure_name, measured, with_error

if TYPE_CHECKING:
    from launch.export import Asked, Subject

TITLES = {
    "autoregressive": "autoregressive language model",
    "masked_diffusion": "masked diffusion language model",
    "edm": "diffusion model (EDM)",
    "f_distill": "distilled generator (f-distill)",
    "text_to_image": "text-to-image diffusion model",
    "kl_vae": "KL autoencoder",
    "mee_gan": "GAN with manifold entropy estimation",
}

LIBRARIES = {"llama": "transformers", "peft": "peft", "diffusers": "diffusers"}
"""What loads a layout, where it is not this program."""

MODEL = 'model = AutoModelForCausalLM.from_pretrained("{name}")'
BARE = f"""from transformers import AutoModelForCausalLM

{MODEL}"""
WITH_AUTO_TOKENIZER = f"""from transformers import AutoModelForCausalLM, AutoTokenizer

{MODEL}
tokenizer = AutoTokenizer.from_pretrained("{{name}}")"""
WITH_OUR_TOKENIZER = f"""from pathlib import Path

from generative.data.tokenizers import load_tokenizer
from transformers import AutoModelForCausalLM

{MODEL}
tokenizer = load_tokenizer(Path("{{name}}"))"""


MASKED = """import torch
from transformers import LlamaForCausalLM

# Each token sees all others: nothing is added to attention scores. The last head row is the mask's, never to be drawn.
model = LlamaForCausalLM.from_pretrained("{name}").eval()
ids = torch.full((1, 16), model.config.mask_token_id)
logits = model(ids, attention_mask=torch.zeros(1, 1, 16, 16)).logits[..., : model.config.text_vocab_size]

# or, with both in the class, for ids of any length:
from generative.hub.bidirectional import BidirectionalLlama

logits = BidirectionalLlama.from_pretrained("{name}")(ids).logits"""

ADAPTER = """from peft import PeftModel
from transformers import LlamaForCausalLM

# BASE: what this was trained from, exported with --layout llama
model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained("BASE"), "{name}")"""

ONE_STEP = """from generative.hub.loading import load_exported

model = load_exported("{name}")
images = model.sample(16, seed=0)  # float32[16, C, H, W] in [-1, 1], network calls each: {calls}"""


PIPELINE = """from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("{name}")
image = pipeline("a lighthouse in a storm", num_inference_steps=1, guidance_scale=0.0).images[0]"""

LATENTS = """from generative.hub.loading import load_exported

model = load_exported("{name}")
latents = model.sample(16, seed=0, text=text)  # text float[16, L, D]: embeddings by the teacher's text encoder"""


def make_card(subject: Subject, asked: Asked, title: str, tokenizer: Tokenizer | None, notes: list[str]) -> Card:
    """The card of a subject, from its run folder."""
    kind = subject.config.method.name
    return Card(
        title=title,
        summary=_summary(subject, TITLES.get(kind, kind)),
        library=LIBRARIES.get(asked.layout, "generative"),
        task="text-to-image" if subject.facts.text_shape else task_of(subject.facts),
        tags=["generative", kind.replace("_", "-")],
        training=dict(_training(subject, asked)),
        command=_command(subject.folder),
        figures=[*_figures(subject), *_validation(subject)],
        measured=", measured before the weights were rounded to bf16" if asked.dtype == "bf16" else "",
        usage=_usage(subject, asked.layout, tokenizer, title),
        notes=notes,
    )


def masked_notes(method: Any) -> list[str]:
    """What a model of masked tokens expects besides seeing all of them."""
    notes = []
    if getattr(method, "shift", False):
        notes.append("the output at position i - 1 predicts token i")
    if getattr(method, "block_size", None):
        notes.append(
            f"it was trained on blocks of {method.block_size} tokens: a block sees itself and the clean ones before it"
        )
    return notes


def _usage(subject: Subject, layout: str, tokenizer: Tokenizer | None, title: str) -> tuple[str, str]:
    """(language, code)."""
    fixed = {"diffusers": PIPELINE, "peft": ADAPTER}.get(layout)
    if layout == "llama":
        fixed = MASKED if subject.config.method.name == "masked_diffusion" else _loading(tokenizer)
    if fixed is not None:
        return "python", fixed.format(name=title)
    if subject.network == getattr(subject.method, "product", None):
        student: Any = subject.config.method
        text = LATENTS if subject.facts.text_shape else ONE_STEP
        return "python", text.format(name=title, calls=1 + len(student.steps.levels))
    return start_from(title, subject.one_of_several)


def _loading(tokenizer: Tokenizer | None) -> str:
    if tokenizer is None:
        return BARE
    return WITH_AUTO_TOKENIZER if tokenizer.name == "huggingface" else WITH_OUR_TOKENIZER


def _summary(subject: Subject, kind: str) -> str:
    count = sum(parameter.numel() for parameter in subject.module.parameters())
    article = "An" if kind[0] in "aeiou" else "A"
    text = f"{article} {kind} of {compact(count)} parameters"
    if subject.one_of_several:
        text = f"The {subject.network} ({compact(count)} parameters) of {article.lower()} {kind}"
    if subject.facts.sample_shape:
        text += f", for samples of shape {list(subject.facts.sample_shape)}"
    sizes: Any = getattr(subject.method, "network", None)
    if isinstance(sizes, TransformerConfig):
        padding = f" (padded to {sizes.padded_vocab:,})" if sizes.padded_vocab != sizes.vocab_size else ""
        vocabulary = f"{sizes.vocab_size:,} tokens{padding}"
        text += f": {sizes.layers} layers of width {sizes.width}, {sizes.heads} heads, vocabulary of {vocabulary}, "
        text += f"sequences of at most {sizes.max_length:,} tokens"
    return f"{text}. Trained and exported with `generative`."


def _training(subject: Subject, asked: Asked) -> Iterator[tuple[str, str]]:
    config, meta = subject.config, subject.checkpoint.meta
    yield "run", config.name or subject.folder.name
    yield "data", modality(config).describe(config)
    yield "steps", _steps(subject)
    samples, length = int(meta.get("samples", 0)), subject.facts.sequence_length
    yield "samples", f"{samples:,}, {config.train.batch_size:,} a step"
    if length:
        yield "tokens", f"{samples * length:,}"
    yield "optimizer", f"{config.train.optimizer.name}, learning rate {config.train.optimizer.lr:g}"
    yield "seed", f"{config.train.seed}"
    yield "precision", f"{config.train.precision}; exported as {asked.dtype}"
    world = meta.get("world", subject.checkpoint.world)
    yield "workers", f"{world} ({meta.get('strategy', config.parallel.strategy)})"
    yield "weights", _weights(subject)


def _weights(subject: Subject) -> str:
    if isinstance(subject.average, float):
        return f"moving average, decay {subject.average:g} a step"
    return "as trained" if subject.worn == "trained" else f"moving average ({subject.worn})"


def _steps(subject: Subject) -> str:
    step, planned = subject.checkpoint.step, subject.config.train.steps
    return f"{step:,} of {planned:,}" if planned and planned != step else f"{step:,}"


def _command(folder: Path) -> str:
    words = read_json(folder / "environment.json").get("command") or []
    return shlex.join(["generative", *map(str, words[1:])]) if words else ""


def _figures(subject: Subject) -> Iterator[tuple[str, str, str]]:
    """The figures of these very weights: of another step or average they would say something else."""
    folder, step = subject.folder, subject.checkpoint.step
    for path in (folder / "evaluation.json", *sorted(folder.glob("evaluations/*.json"))):
        found = read_json(path)
        if (found.get("step"), found.get("model")) == (step, subject.worn):
            for key, figure in found.get("figures", {}).items():
                bound = f"{figure['bound']} bound" if figure.get("bound") else None
                parts = [bound, figure.get("protocol"), found.get("data")]
                name = f"{figure_name(key)} baseline" if key in NAMES.values() else figure_name(key)
                yield name, measured(figure), ", ".join(filter(None, parts))
            return


def _validation(subject: Subject) -> Iterator[tuple[str, str, str]]:
    """The held-out loss at the step of the checkpoint, if these weights were validated then."""
    rates = subject.method.networks()[subject.network].ema
    first = f"ema {rates[0]}" if subject.config.train.validation.weights == "ema" and rates else "trained"
    if subject.worn != first:
        return
    for line in read_lines(subject.folder / "metrics.jsonl"):
        if line.get("kind") == "validation" and line.get("step") == subject.checkpoint.step:
            for update, loss in line["loss"].items():
                protocol = f"during training, {loss.get('n')} held-out samples"
                yield f"validation loss ({update})", f"{with_error(loss)} nats/token", protocol
