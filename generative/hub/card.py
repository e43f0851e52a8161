"""README.md of an exported folder: the model card, from what is known of the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from generative.method import DataFacts


@dataclass(frozen=True)
class Card:
    """What a model card says.

    Args:
        title: name of the model.
        summary: what it is, in a sentence or two.
        library: program that loads it, "generative" or "transformers".
        task: what it does, in the hub's words ("text-generation").
        tags: for search on the hub.
        training: facts by name.
        command: that trained it; "" where it is not known.
        figures: rows (figure, value with its error and unit, how it was measured); [] where nothing was measured.
        measured: further words on how the figures were measured, from a comma on.
        usage: code that loads it, in a fenced block's language and text.
        notes: what a user of the model must know besides.
    """

    title: str
    summary: str
    library: str
    task: str
    tags: Sequence[str]
    training: Mapping[str, str]
    command: str
    figures: Sequence[tuple[str, str, str]]
    measured: str
    usage: tuple[str, str]
    notes: Sequence[str] = field(default_factory=list)


def task_of(facts: DataFacts) -> str:
    """What a model of such data does, in the hub's words."""
    return "unconditional-image-generation" if facts.sample_shape else "text-generation"


def start_from(folder: str, network: str | None = None) -> tuple[str, str]:
    """`Card.usage` of a folder that runs start from; `network`: the only one in it, where the method has several."""
    key = f"train.networks.{network}.init_from" if network else "method.init_from"
    about = "# start from these weights; CONFIG has the method and the network of config.json"
    return "sh", f"{about}\ngenerative train CONFIG {key}={folder}"


def render(card: Card) -> str:
    """The text of README.md, in the Markdown of the Hugging Face hub."""
    parts = [
        _front_matter(card),
        f"# {card.title}",
        card.summary,
        *(f"Note: {note}." for note in card.notes),
        "## Training",
        _table(("", ""), card.training.items()),
        *([_code("", card.command)] if card.command else []),
        "## Evaluation",
        _evaluation(card),
        "## Use",
        _code(*card.usage),
        "## Licence",
        "None is stated yet. Whoever publishes this model chooses one, with regard to the data that it was trained on, "
        "and sets `license` at the top of this file.",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(card: Card) -> str:
    lines = [
        "---",
        "# license: (choose one: https://huggingface.co/docs/hub/repositories-licenses)",
        f"library_name: {card.library}",
        f"pipeline_tag: {card.task}",
        "tags:",
        *(f"- {tag}" for tag in card.tags),
        "---",
    ]
    return "\n".join(lines)


def _evaluation(card: Card) -> str:
    if not card.figures:
        return "These weights have not been measured."
    return f"Values with their standard errors{card.measured}.\n\n" + _table(
        ("figure", "value", "how it was measured"), card.figures
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines: list[Sequence[str]] = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"
