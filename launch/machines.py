"""Machines that a plan can be made for: a YAML file each, in `configs/machines`, in the user's folder, or anywhere."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt

from generative.config import Config, config_folder, find_config, load
from generative.errors import ConfigError, suggestion

FOLDER = "machines"


class Machine(Config):
    """One kind of GPU, and how such GPUs are put together. Rates are peaks of dense arithmetic, without sparsity."""

    memory_gb: PositiveFloat
    """Memory of one GPU, 1e9 bytes."""
    bf16_tflops: PositiveFloat
    """Products of bf16 matrices, 1e12 FLOP a second."""
    fp32_tflops: PositiveFloat
    """Products of fp32 matrices (TF32 off), 1e12 FLOP a second."""
    within_gb_per_s: PositiveFloat
    """What a GPU can send to others of its node (one direction)."""
    between_gb_per_s: PositiveFloat
    """What a GPU can send to other nodes (one direction, its share of the network cards)."""
    gpus_per_node: PositiveInt
    """GPUs in a node."""
    price_per_hour: float | None = Field(default=None, ge=0)
    """Assumed price of one GPU for an hour, in dollars; null: no cost is told."""

    def peak_flops(self, precision: str) -> float:
        """FLOP a second of one GPU in training of this precision."""
        return 1e12 * (self.bf16_tflops if precision == "bf16" else self.fp32_tflops)

    def link(self, workers: int) -> float:
        """Bytes a second that a GPU can send where so many of them form a ring: its slowest link counts."""
        return 1e9 * (self.within_gb_per_s if workers <= self.gpus_per_node else self.between_gb_per_s)


def machine_names() -> list[str]:
    """Names that come with the program, and those in the folder `machines` of the current folder."""
    folders = (config_folder() / FOLDER, Path(FOLDER))
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def load_machine(name: str) -> Machine:
    """A machine by its name (`machines/NAME.yaml` in the current folder wins over ours) or by the path of a YAML file.

    Raises:
        ConfigError: there is no such machine, or its file has wrong or missing keys.
    """
    known = machine_names()
    is_path = name.endswith((".yaml", ".yml"))
    if not is_path and name not in known:
        raise ConfigError(
            f"plan.machine: no machine named {name!r}{suggestion(name, known)}",
            expected=f"one of {', '.join(known)}, or the path of a YAML file",
            remedy=f"correct plan.machine, or describe yours in {FOLDER}/{Path(name).name}.yaml after the example of "
            f"{config_folder() / FOLDER / known[0]}.yaml"
            if known
            else "give the path of a YAML file",
        )
    found = find_config(name if is_path else f"{FOLDER}/{name}")
    return load(str(found), (), lambda values: Machine)
