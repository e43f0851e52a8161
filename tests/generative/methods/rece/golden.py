"""The golden cases of RECE and UCE: settings, embeddings, weights, and what the released code made of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from generative.methods.rece.config import EraseConfig, StepConfig
from generative.methods.rece.erase import Task
from generative.methods.rece.preserve import Kept
from generative.methods.rece.tokens import Prompt, Segment

FOLDER = Path(__file__).parents[3] / "golden" / "rece"
REGULARISERS = {
    "regzero": "zero",
    "standard": "standard",
    "sur-1st": "surrogate_1st",
    "sur-2nd": "surrogate_2nd",
    "sur-both": "surrogate_both",
}


@dataclass(frozen=True)
class Case:
    name: str
    settings: dict[str, Any]
    f32: dict[str, Tensor]
    f64: dict[str, Tensor]

    @property
    def width(self) -> int:
        return self.settings["d"]

    def prompt(self, text: str) -> Prompt:
        i = self.settings["texts"].index(text)
        rows = self.f32[f"text/{i}/embedding"].double()
        valid = int(self.f32[f"text/{i}/attention_mask"].sum())
        return Prompt(text, (Segment(rows, valid),), valid - 2)

    def weights(self, prefix: str, single: bool = False) -> dict[str, Tensor]:
        source = self.f32 if single or prefix == "w0" or prefix not in "".join(self.f64) else self.f64
        return {k.removeprefix(f"{prefix}/"): v for k, v in source.items() if k.startswith(f"{prefix}/")}

    def kept(self, variant: str, texts: list[str]) -> Kept:
        return Kept.of(variant, [self.prompt(t) for t in texts], self.width)

    @property
    def task(self) -> Task:
        s = self.settings
        # Scripts that keep ' ' do so once for each concept.
        again = len(s["concepts"]) if s["retain_rece"] == [" "] else 1
        return Task(
            [self.prompt(t) for t in s["concepts"]],
            [self.prompt(t) for t in s["guides"]],
            self.kept("suffix", s["retain_uce"]),
            self.kept("whole", s["retain_rece"]).times(again),
            [self.prompt(t) for t in s.get("old_target") or []],
        )

    @property
    def config(self) -> EraseConfig:
        s = self.settings
        start = StepConfig(
            technique=s["technique"],
            lamb=s["uce_lamb"],
            erase_scale=s["uce_erase"],
            preserve_scale=s["uce_preserve"],
        )
        step = StepConfig(
            variant="whole",
            technique=s["technique"],
            lamb=s["rece_lamb"],
            erase_scale=s["rece_erase"],
            preserve_scale=s["rece_preserve"],
        )
        return EraseConfig(start=start, epochs=s["epochs"], lam=s["lam"], regulariser=REGULARISERS[s["reg"]], step=step)


def load(name: str) -> Case:
    folder = FOLDER / name
    return Case(
        name,
        json.loads((folder / "case.json").read_text()),
        load_file(folder / "f32.safetensors"),
        load_file(folder / "f64_outputs.safetensors"),
    )


def names() -> list[str]:
    return sorted(path.parent.name for path in FOLDER.glob("*/case.json"))
