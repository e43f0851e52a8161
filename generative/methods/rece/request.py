"""What is asked for, checked, and as tasks for each stream of text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from generative.errors import ConfigError
from generative.methods.rece.closed_form import check_finite
from generative.methods.rece.config import EraseConfig, StepConfig
from generative.methods.rece.erase import Task
from generative.methods.rece.preserve import Kept
from generative.methods.rece.tokens import Prompt, Variant

Encode = Callable[[Sequence[str]], Mapping[str, Sequence[Prompt]]]
"""Embeddings of some texts by stream."""

Sums = Mapping[tuple[str, Variant], Kept]
"""What is to stay, by stream and tokens ("whole" or "last")."""


@dataclass(frozen=True)
class Request:
    """What is to be erased.

    Args:
        concepts: texts.
        guides: what each is sent to; one for all, or as many.
        config: constants.
        targets: of the regulariser `standard`; empty: the guides.
        keep: texts that stay beside the empty one, for the checks; those of large sets go through `agreeing`.
    """

    concepts: Sequence[str]
    guides: Sequence[str]
    config: EraseConfig = field(default_factory=EraseConfig)
    targets: Sequence[str] = ()
    keep: Sequence[str] = field(default_factory=list)

    def paired(self) -> list[tuple[str, str]]:
        """Concepts with their guides, checked.

        Raises:
            ConfigError: nothing to erase, numbers that do not match, an empty concept, a guide that is the concept, or
                a concept among what is to stay.
        """
        concepts = [concept.strip() for concept in self.concepts]
        guides = list(self.guides) * (len(concepts) if len(self.guides) == 1 else 1)
        if not concepts or len(guides) != len(concepts):
            raise ConfigError(
                f"{len(concepts)} concepts and {len(self.guides)} guides",
                expected="one or more concepts, and one guide for all or one for each",
                remedy='give --concept, and --guide once or as often (--guide " " for nothing in particular)',
            )
        if "" in concepts:
            raise _nothing("")
        twice = next((c for c in concepts if [_plain(other) for other in concepts].count(_plain(c)) > 1), None)
        if twice is not None:
            raise ConfigError(f"the concept {twice!r} is given twice", "each once", "leave one out")
        for concept, guide in zip(concepts, guides, strict=True):
            if _plain(concept) == _plain(guide):
                raise ConfigError(
                    f"the guide of {concept!r} is the concept itself: nothing would change",
                    expected='another text, such as " ", "art" or a harmless relative',
                    remedy="correct --guide",
                )
        for _ in self.agreeing(self.keep):
            pass
        return list(zip(concepts, guides, strict=True))

    def agreeing(self, texts: Iterable[str]) -> Iterator[str]:
        """Texts that stay, as they come.

        Raises:
            ConfigError: a concept among them.
        """
        erased = {_plain(concept) for concept in self.concepts}
        for text in texts:
            if _plain(text) in erased:
                raise ConfigError(
                    f"{text!r} is to be erased and to stay",
                    expected="texts to keep that are none of the concepts",
                    remedy="take it out of --preserve, or out of --concept",
                )
            yield text

    @property
    def targets_of_each(self) -> list[str]:
        """One for each concept, or none."""
        return list(self.targets) * (len(self.concepts) if len(self.targets) == 1 else 1)


def tasks(request: Request, encode: Encode, kept: Sums | None = None) -> dict[str, Task]:
    """Embeddings of all that is asked for, by stream.

    Args:
        request: what is asked.
        encode: the model's text encoders.
        kept: sums over further texts that stay (`keep_sums`).

    Raises:
        ConfigError: as `Request.paired`, a concept that tokenizes to nothing, one that is too long, or `shrink` with
            nothing to keep.
        DataError: embeddings that are not finite.
    """
    paired = request.paired()
    config = request.config
    if config.shrink and not kept:
        raise ConfigError(
            f"shrink {config.shrink:g} and no texts to keep: all texts would lose their meaning",
            expected="texts that show all that the model is to be used for",
            remedy="give --preserve FILE, or --shrink 0",
        )
    concepts = encode([concept for concept, _ in paired])
    guides = encode([guide or " " for _, guide in paired])  # '' stands for ' ', as in UCE's code
    targets = encode(request.targets_of_each) if request.targets else {}
    empty = encode([" ", ""])
    for prompt in (*next(iter(concepts.values())), *next(iter(guides.values()))):
        _check_length(prompt)
    _check_content(next(iter(concepts.values())))
    found = {}
    for name in concepts:
        for prompt in (*concepts[name], *guides[name], *targets.get(name, ())):
            check_finite(prompt.rows, f"the embeddings of {prompt.text!r}")
        spaced, plain = empty[name]
        found[name] = Task(
            concepts[name],
            guides[name],
            _kept(config.start, name, plain, spaced, len(paired), kept),
            _kept(config.step, name, plain, spaced, len(paired), kept),
            targets.get(name, ()),
        )
    return found


def keep_group(variant: Variant) -> Variant:
    """Whose sum serves a variant: suffix keeps all rows, as whole does."""
    return "last" if variant == "last" else "whole"


def keep_groups(config: EraseConfig) -> list[Variant]:
    """The sums that a configuration needs."""
    steps = [config.start, *([config.step] if config.epochs else [])]
    return sorted({keep_group(step.variant) for step in steps})


def keep_sums(texts: Iterable[str], encode: Encode, groups: Sequence[Variant], batch: int = 64) -> Sums:
    """Sums over any number of texts, in one pass; those of several workers are added up by `Kept.plus`."""
    found: dict[tuple[str, Variant], Kept] = {}
    waiting: list[str] = []

    def add() -> None:
        for name, prompts in encode(waiting).items():
            for group in groups:
                part = Kept.of(group, prompts, prompts[0].segments[0].rows.shape[1])
                before = found.get((name, group))
                found[name, group] = part if before is None else before.plus(part)

    for text in texts:
        waiting.append(text)
        if len(waiting) == batch:
            add()
            waiting = []
    if waiting:
        add()
    return found


def _kept(step: StepConfig, name: str, plain: Prompt, spaced: Prompt, concepts: int, others: Sums | None) -> Kept:
    width = plain.segments[0].rows.shape[1]
    group = keep_group(step.variant)
    found = (others or {}).get((name, group), Kept.nothing(width))
    if step.empty_text == "once":
        found = found.plus(Kept.of(group, [plain], width))
    elif step.empty_text == "each":
        found = found.plus(Kept.of(group, [spaced], width).times(concepts))
    return found


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _check_content(concepts: Sequence[Prompt]) -> None:
    for prompt in concepts:
        if prompt.content < 1:
            raise _nothing(prompt.text)


def _nothing(concept: str) -> ConfigError:
    return ConfigError(
        f"the concept {concept!r} tokenizes to nothing that the model knows",
        expected="a text with one token or more in the model's vocabulary",
        remedy="correct --concept",
    )


def _check_length(prompt: Prompt) -> None:
    if prompt.content > prompt.room:
        raise ConfigError(
            f"{prompt.text[:60]!r} has {prompt.content} tokens, and the text encoder reads {prompt.room}",
            expected=f"a text of at most {prompt.room} tokens",
            remedy="shorten it, or name its parts one by one",
        )
