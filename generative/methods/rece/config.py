"""Settings of UCE and RECE. Defaults and presets are those of the released code."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from generative.config import Config
from generative.config_messages import combination
from generative.methods.rece.closed_form import Regulariser
from generative.methods.rece.tokens import Variant
from generative.registry import Registry

LEAST_PRESERVE = 0.1
"""Of the rule for `preserve_scale`."""
REFERENCE_SQUARE = 768.0
"""|e|^2 of a token of SD 1.x, that the published constants were chosen at (norm about 28: from memory, unverified)."""


class StepConfig(Config):
    """One edit of the weights: W' = argmin s_e |W c - v*|^2 + s_p |W c_j - W_cur c_j|^2 + lamb |W - W_cur|^2 + s |W|^2,
    the last (ours) off by default."""

    variant: Variant = "suffix"
    """Which tokens: suffix (from the last content token on), whole (all rows), last (the last content token)."""
    technique: Literal["replace", "tensor"] = "replace"
    """v*: what the guide gives; `tensor` then takes its part along the concept's outputs out (an early experiment of
    UCE, layer by layer, so that it has no shared transform)."""
    lamb: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    """Pull towards the current weights."""
    erase_scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """s_e."""
    preserve_scale: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """s_p of each text that is kept; null: max(0.1, 1 / number of them), to three decimals."""
    empty_text: Literal["once", "each", "never"] = "once"
    """Whether the empty prompt is among the texts that are kept: once, once for each concept, or not."""
    shrink: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """s, in units of tr(sum s_p c_j c_j^T): directions of the text space with less than this share of what is kept are
    given up, so that attacks find little else to use, and texts unlike all that is kept lose their meaning. 0.01 to 0.1
    in small models."""
    distinct_rows: bool = False
    """Count equal pairs of rows once, of whatever texts they are (start tokens, padding that repeats itself). The
    released code counts all rows."""

    @model_validator(mode="after")
    def _rows_by_replace(self) -> StepConfig:
        for key, given in (("distinct_rows", self.distinct_rows), ("shrink", self.shrink)):
            if given and self.technique == "tensor":
                raise combination(
                    f"{key} with the technique tensor, which takes all rows of a text as one",
                    f"replace, or no {key}",
                    "leave one out",
                )
        return self

    def preserve(self, texts: int) -> float:
        """s_p for so many texts."""
        if self.preserve_scale is not None:
            return self.preserve_scale
        return round(max(LEAST_PRESERVE, 1 / max(texts, 1)), 3)


class EraseConfig(Config):
    """UCE's edit (`start`), and RECE's epochs after it: derive what brings a concept back, and erase that too."""

    start: StepConfig = StepConfig()
    """UCE."""
    epochs: int = Field(default=3, ge=0)
    """Of RECE; 0: UCE alone."""
    lam: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Ridge of the derivation: the smaller, the larger the derived embedding and the harm to other concepts."""
    regulariser: Regulariser = "zero"
    """Of the derivation: zero (published), or one of the released code's ablations."""
    step: StepConfig = StepConfig(variant="whole", lamb=0.1, preserve_scale=0.1)
    """RECE's edit of each epoch."""
    cumulative: bool = False
    """Solve every epoch from the weights before the erasure, with all pairs so far and the concept itself. Plain RECE
    lets the concept drift, and under strong preservation it came back in small models."""
    scale_free: bool = False
    """Take lamb times |e|^2 / 768 and lam times tr(G) / d: the published constants hold for one width and scale of
    embeddings and weights. tr(G) / d of SD 1.4 is taken as 1 (unverified)."""

    @property
    def shrink(self) -> float:
        """The largest of the edits that are made."""
        return max(self.start.shrink, self.step.shrink if self.epochs else 0.0)


class Preset(Config):
    """Published settings for a kind of concept."""

    erase: EraseConfig
    """Constants."""
    guide: str = " "
    """What the concept is sent to."""
    concepts: tuple[str, ...] = ()
    """Where the task has a list of its own."""


I2P = (
    "hate",
    "harassment",
    "violence",
    "suffering",
    "humiliation",
    "harm",
    "suicide",
    "sexual",
    "nudity",
    "bodily fluids",
    "blood",
)
"""Concepts of the data set I2P."""
_KEEP_ONE = StepConfig(preserve_scale=1.0)
_KEEP_ONLY: dict[str, float] = {"preserve_scale": 0.3, "shrink": 0.05}
_KEEP_EACH = StepConfig(variant="whole", lamb=0.1, preserve_scale=0.1, empty_text="each")


PRESETS: Registry[Preset] = Registry(
    "preset",
    {
        "nudity": Preset(erase=EraseConfig(start=_KEEP_ONE, lam=0.1, epochs=3, step=_KEEP_EACH)),
        "unsafe": Preset(erase=EraseConfig(start=_KEEP_ONE, lam=0.1, epochs=2, step=_KEEP_EACH), concepts=I2P),
        "artist": Preset(erase=EraseConfig(start=StepConfig(preserve_scale=0.1), lam=1e-3, epochs=1), guide="art"),
        "hard_object": Preset(erase=EraseConfig(start=_KEEP_ONE, lam=1e-3, epochs=1)),
        "easy_object": Preset(erase=EraseConfig(start=_KEEP_ONE, lam=0.1, epochs=1)),
        "small": Preset(erase=EraseConfig(start=_KEEP_ONE, lam=1e-3, epochs=1, scale_free=True)),
        "keep_only": Preset(
            erase=EraseConfig(
                start=StepConfig(**_KEEP_ONLY),
                step=StepConfig(variant="whole", lamb=0.1, **_KEEP_ONLY),
                cumulative=True,
                scale_free=True,
            )
        ),
        "uce": Preset(erase=EraseConfig(epochs=0)),
        "uce_last": Preset(
            erase=EraseConfig(start=StepConfig(variant="last", preserve_scale=1.0, empty_text="never"), epochs=0),
            guide="",
        ),
    },
)
"""nudity ... easy_object: RECE's README and scripts; small: ours, hard_object in units of the model's own, for models
of another width; keep_only: ours, cumulative, and what no text of --preserve has is given up; uce, uce_last: UCE's
code, old and new."""
