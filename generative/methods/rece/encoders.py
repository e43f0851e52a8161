"""Texts to embeddings as the pipelines of diffusers make them, with encoders of transformers that are given."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.methods.rece.tokens import Prompt, Segment

PROBES = ("a photo of a garden", "", "two words")
"""Texts whose embeddings tell one set of encoders from another."""


@dataclass(frozen=True)
class Encoder:
    """One text encoder.

    Args:
        tokenizer: of transformers.
        model: CLIPTextModel, CLIPTextModelWithProjection or T5EncoderModel, in eval mode.
        length: L, to which texts are padded and cut.
        attends: whether the model is told which tokens are padding (PixArt).
    """

    tokenizer: Any
    model: Any
    length: int
    attends: bool = False

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Encoded:
        """Embeddings of some texts."""
        found = self.tokenizer(
            list(texts), padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        )
        device = next(self.model.parameters()).device
        mask = found["attention_mask"]
        told = {"attention_mask": mask.to(device)} if self.attends else {}
        out = self.model(found["input_ids"].to(device), output_hidden_states=True, **told)
        pooled = out[0] if out[0].ndim == 2 else getattr(out, "pooler_output", None)
        return Encoded(
            last=out.last_hidden_state.double().cpu(),
            before_last=out.hidden_states[-2].double().cpu(),
            pooled=None if pooled is None else pooled.double().cpu(),
            valid=mask.sum(1).tolist(),
            content=[self._content(text) for text in texts],
        )

    @property
    def room(self) -> int:
        """Tokens beside the special ones."""
        return self.length - int(self.tokenizer.num_special_tokens_to_add())

    def _content(self, text: str) -> int:
        """Tokens; 0 where none is known: words that the vocabulary has not are all one token, which says nothing."""
        found: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        unknown = self.tokenizer.unk_token_id
        # CLIP's end is its unknown token as well, and CLIP's pieces cover all texts
        if unknown == self.tokenizer.eos_token_id or any(token != unknown for token in found):
            return len(found)
        return 0

    def near_words(self, text: str, count: int) -> list[str]:
        """Whole words of the vocabulary whose input embeddings are nearest to those of a text, its own left out."""
        table = self.model.get_input_embeddings().weight.detach().float()
        own = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not own:
            return []
        score = F.normalize(table, dim=1) @ F.normalize(table[own].mean(0), dim=0)
        pieces = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        said = set(text.lower().split())
        marked = any(piece.endswith("</w>") or piece.startswith("▁") for piece in pieces)
        found: dict[str, None] = {}
        for i in score.argsort(descending=True).tolist():
            word = _whole_word(pieces[i], marked) if i < len(pieces) else ""
            if word and word not in said:
                found[word] = None
            if len(found) == count:
                break
        return list(found)


def _whole_word(piece: str, marked: bool = True) -> str:
    """CLIP ends words with </w>, T5 begins them with a bar; vocabularies without marks have whole words only.

    "" for parts of words, signs and short words.
    """
    word = piece.removesuffix("</w>") if piece.endswith("</w>") else piece.removeprefix("▁")
    return word.lower() if (word != piece or not marked) and word.isalpha() and len(word) > 2 else ""


@dataclass(frozen=True)
class Encoded:
    """Of N texts: float64[N, L, d] twice, float64[N, d] or None, and counts of tokens with and without special ones."""

    last: Tensor
    before_last: Tensor
    pooled: Tensor | None
    valid: list[int]
    content: list[int]


@dataclass(frozen=True)
class TextEncoders:
    """All encoders of a model.

    Args:
        kind: class of the denoiser, which decides how embeddings are put together.
        parts: by their names in the pipeline: text_encoder, text_encoder_2, text_encoder_3.
        width: of the token sequence that the denoiser reads; None: as it is.
    """

    kind: str
    parts: Mapping[str, Encoder]
    width: int | None = None

    def encode(self, texts: Sequence[str]) -> dict[str, list[Prompt]]:
        """Prompts by stream: text, and pooled where the model has it."""
        lowered = self.kind in ("PixArtTransformer2DModel", "Transformer2DModel")  # as its pipeline does
        ready = [t.lower().strip() for t in texts] if lowered else list(texts)
        found = {name: part(ready) for name, part in self.parts.items()}
        room = min(part.room for part in self.parts.values())
        prompts: dict[str, list[Prompt]] = {}
        for i, text in enumerate(texts):
            content = min(one.content[i] for one in found.values())
            for name, segments in self._streams(found, i).items():
                prompts.setdefault(name, []).append(Prompt(text, segments, content, room))
        return prompts

    def _streams(self, found: Mapping[str, Encoded], i: int) -> dict[str, tuple[Segment, ...]]:
        """How the pipelines put the encoders together."""
        clips = {name: one for name, one in found.items() if not self._is_t5(name)}
        t5 = tuple(Segment(one.last[i], one.valid[i], True) for name, one in found.items() if name not in clips)
        pooled = [one.pooled for one in clips.values()]
        if not clips:  # PixArt, DeepFloyd IF
            return {"text": t5}
        first = next(iter(clips.values()))
        if self.kind == "FluxTransformer2DModel":
            return {"text": t5, "pooled": _pooled(pooled, i)}
        if self.kind.startswith("UNet") and list(clips) == ["text_encoder"]:
            return {"text": (Segment(first.last[i], first.valid[i]),)}
        rows = torch.cat([one.before_last[i] for one in clips.values()], 1)
        if self.kind.startswith("UNet"):  # SDXL; the pooled text is the last encoder's
            return {"text": (Segment(rows, first.valid[i]),), "pooled": _pooled(pooled[-1:], i)}
        padded = F.pad(rows, (0, (self.width or rows.shape[1]) - rows.shape[1]))
        return {"text": (Segment(padded, first.valid[i]), *t5), "pooled": _pooled(pooled, i)}

    def _is_t5(self, name: str) -> bool:
        return type(self.parts[name].model).__name__ == "T5EncoderModel"

    def fingerprint(self) -> str:
        """The same for the same encoders and tokenizers: a hash of what they make of a few texts."""
        digest = hashlib.sha256(self.kind.encode())
        for prompts in self.encode(PROBES).values():
            for prompt in prompts:
                for segment in prompt.segments:
                    digest.update(f"{segment.valid} {tuple(segment.rows.shape)}".encode())
                    digest.update(segment.rows.numpy().tobytes())
        return digest.hexdigest()


def _pooled(parts: Sequence[Tensor | None], i: int) -> tuple[Segment, ...]:
    """One row, at place 0 for every variant."""
    return (Segment(torch.cat([part[i] for part in parts if part is not None])[None], 2),)
