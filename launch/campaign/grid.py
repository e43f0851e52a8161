"""The cells of a campaign: which are asked for, which are left out, and what each trains with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from evaluation.scaling.flops import CONVENTIONS
from evaluation.scaling.rules import marin, mup_rates, nanochat, porian, steps_for
from evaluation.scaling.shapes import Shape, parameters, shape_of
from generative.config import load_layers
from generative.errors import ConfigError
from generative.nets.transformer_config import TransformerConfig, fit_to_data
from generative.training.config import OptimizerConfig
from launch.campaign.cells import Cell, shown, size_of
from launch.campaign.schema import CampaignConfig, Size, SizeConfig, size_name
from launch.modality import modality
from launch.schema import SCHEMAS, RunConfig, load_run_config


@dataclass(frozen=True)
class Grid:
    """The cells of a campaign.

    Args:
        cells: those to run, the grid first.
        left_out: (name, key of the configuration that says so, why) of the others.
    """

    cells: tuple[Cell, ...]
    left_out: tuple[tuple[str, str, str], ...]


def expand(config: CampaignConfig) -> Grid:
    """All cells.

    Raises:
        ConfigError: two cells are the same, none is left, a budget smaller than any of its cells, or a family whose
            method has no likelihood that laws could be fitted to.
    """
    made: dict[tuple[str, str], tuple[RunConfig, Shape]] = {}
    cells: list[Cell] = []
    left_out: list[tuple[str, str, str]] = []
    for family, budget, size, seed, fixed in _wanted(config):
        key = (family, size_name(size))
        if key not in made:
            made[key] = _sized(config, family, size)
        cell = _cell(config, family, budget, size_name(size), seed, *made[key])
        if why := _why_not(config, cell, fixed):
            left_out.append((cell.name, *why))
        else:
            cells.append(cell)
    _check(config, cells, left_out)
    return Grid(tuple(cells), tuple(left_out))


def _wanted(config: CampaignConfig) -> Iterator[tuple[str, float, Size, int, bool]]:
    """(family, budget, size, seed, whether it was asked for by name)."""
    for name, family in config.families.items():
        for budget in config.budgets if family.budgets is None else family.budgets:
            for size in config.sizes if family.sizes is None else family.sizes:
                for seed in config.seeds:
                    yield name, budget, size, seed, False
    for one in config.extra:
        yield one.family, one.budget, one.size, one.seed, True


def _sized(config: CampaignConfig, name: str, size: Size) -> tuple[RunConfig, Shape]:
    """The run of one size, before its length is chosen."""
    family = config.families[name]
    method = load_layers(family.config).values.get("method", {}).get("name")
    if method in SCHEMAS and SCHEMAS[method].kind != "text":
        raise _no_likelihood(name, family.config, method)
    layers = family.config if isinstance(size, SizeConfig) else f"{family.config}+{size}"
    own = size.overrides if isinstance(size, SizeConfig) else []
    mup = [f"method.network.base_width={config.rule.base_width}"] if config.rule.name == "mup" else []
    run = load_run_config(layers, [*own, *config.set, *family.set, *mup])
    network = getattr(run.method, "network", None)
    if not isinstance(network, TransformerConfig):
        raise _no_likelihood(name, family.config, run.method.name)
    if network.family != "llama":
        raise ConfigError(
            f"families.{name}.config={family.config}: nobody counts method.network.family={network.family}",
            "family=llama, whose parameters and FLOPs are known in each convention",
            "choose another configuration",
        )
    facts = modality(run).known_facts(run)
    network = fit_to_data(network, facts.vocab_size, facts.sequence_length)
    causal = run.method.name == "autoregressive"
    return run, shape_of(network, facts.sequence_length or network.max_length, causal=causal)


def _no_likelihood(family: str, config: str, method: str) -> ConfigError:
    return ConfigError(
        f"families.{family}.config={config}: the method {method} has no likelihood to fit laws to",
        "a method with a likelihood and known FLOPs (masked_diffusion, autoregressive)",
        "choose another configuration",
    )


def _cell(
    config: CampaignConfig, family: str, budget: float, size: str, seed: int, run: RunConfig, shape: Shape
) -> Cell:
    per_token = float(CONVENTIONS[config.count](shape))
    train = run.train
    batch, optimizer = _recipe(config, run, shape, budget / per_token)
    update: dict[str, Any] = {"seed": seed, "batch_size": batch, "optimizer": optimizer, "flops": None}
    update["steps"] = steps_for(budget, per_token, batch, shape.length)
    # A validation on the way would cost compute, and the best of several checkpoints is no point of a law.
    update["validation"] = train.validation.model_copy(update={"every_steps": None})
    update["sample_every"] = None
    run = run.model_copy(
        update={
            "name": f"{config.name}/{family}-{shown(budget)}-{size}-s{seed}",
            "train": train.model_copy(update=update),
            "sample": run.sample.model_copy(update={"at_end": False}),
            "evaluate": run.evaluate.model_copy(update={"at_end": True, "only_likelihood": True}),
        }
    )
    return Cell(family, budget, size, seed, run, shape, config.count)


def _recipe(config: CampaignConfig, run: RunConfig, shape: Shape, tokens: float) -> tuple[int, OptimizerConfig]:
    """Sequences in a batch, and the optimizer's settings, by the campaign's rule."""
    rule, optimizer = config.rule, run.train.optimizer
    batch, rate, decay, betas = float(run.train.batch_size), optimizer.lr, optimizer.weight_decay, optimizer.betas
    if rule.name == "power":
        ratio = size_of(shape, config.count) / (rule.N0 or 1.0)
        batch, rate = batch * ratio**rule.batch_exponent, rate * ratio**-rule.lr_exponent
    elif rule.name == "porian":
        told = porian(parameters(shape).with_head)
        batch, rate = told.batch * 2048 / shape.length, told.learning_rate
        betas = (betas[0], told.beta2 or betas[1])
    elif rule.name == "nanochat":
        told = nanochat(
            tokens, D_ref=rule.D0 or 1.0, learning_rate=rate, weight_decay=decay, length=shape.length, B_ref=rule.B0
        )
        batch, rate, decay = told.batch, told.learning_rate, told.weight_decay or 0.0
    elif rule.name == "marin":
        told = marin(shape.width, tokens, shape.length, rule.steps)
        batch, rate = told.batch, told.learning_rate
    update: dict[str, Any] = {"lr": rate, "weight_decay": decay, "betas": betas}
    if rule.name == "mup":
        update["rates"] = optimizer.rates | mup_rates(shape.width, rule.base_width or shape.width)
    return max(1, round(batch)), optimizer.model_copy(update=update)


def _why_not(config: CampaignConfig, cell: Cell, fixed: bool) -> tuple[str, str] | None:
    """The key that leaves a cell out, and why."""
    near = config.families[cell.family].near or config.near
    if near is not None and not fixed:
        expected = near.N * (cell.budget / near.at) ** near.exponent
        if not 1 / near.factor <= cell.N / expected <= near.factor:
            return "near", f"N {cell.N:.3g} is not within {near.factor:g} x of the expected {expected:.3g}"
    if cell.steps < config.min_steps:
        return "min_steps", f"{cell.steps} steps, fewer than min_steps={config.min_steps}"
    if config.max_tokens is not None and cell.tokens > config.max_tokens:
        return "max_tokens", f"{cell.tokens:.3g} tokens, more than max_tokens={config.max_tokens:.3g}"
    if abs(cell.flops / cell.budget - 1) > config.tolerance:
        return "tolerance", f"whole steps miss the budget by {cell.flops / cell.budget - 1:+.1%} (tolerance)"
    return None


def _check(config: CampaignConfig, cells: list[Cell], left_out: list[tuple[str, str, str]]) -> None:
    if config.rule.name == "mup":
        _check_mup(cells)
    seen: dict[str, str] = {}
    for cell in cells:
        for key in (cell.name, cell.hash):
            if key in seen:
                raise ConfigError(
                    f"the cells {seen[key]} and {cell.name} are the same run",
                    "each family, budget, size and seed once",
                    "remove one of the equal entries in families, budgets, sizes, seeds or extra",
                )
            seen[key] = cell.name
    reasons = {name: why for name, _, why in left_out}
    for name, family in config.families.items():
        for budget in config.budgets if family.budgets is None else family.budgets:
            if not any(cell.family == name and cell.budget == budget for cell in cells):
                why = next((w for n, w in reasons.items() if n.startswith(f"{name}-{shown(budget)}-")), "")
                raise ConfigError(
                    f"no cell of {name} is left at the budget {shown(budget)} ({why})",
                    "a budget that at least one size can spend",
                    f"raise the budget, take smaller sizes or batches, or lower min_steps={config.min_steps}",
                )
    limit = config.limit.flops
    cheapest = min((cell.flops for cell in cells), default=0.0)
    if limit is not None and cheapest > limit:
        raise ConfigError(
            f"limit.flops={shown(limit)} is smaller than one cell: the cheapest costs {shown(cheapest)} FLOPs",
            "a limit that pays for at least one cell",
            "raise limit.flops, or lower the budgets",
        )


def _check_mup(cells: list[Cell]) -> None:
    """Its rates are those of Adam, and hold for heads of one width."""
    for cell in cells:
        if (name := cell.run.train.optimizer.name) != "adamw":
            raise ConfigError(
                f"rule.name=mup with train.optimizer.name={name} ({cell.family})",
                "adamw: the rule's factors on rates are those of Adam",
                "set train.optimizer.name=adamw, or choose another rule",
            )
    heads = {cell.shape.head_width: cell for cell in cells}
    if len(heads) > 1:
        listed = ", ".join(f"{cell.size} has heads of {width}" for width, cell in heads.items())
        raise ConfigError(
            f"rule.name=mup with heads of several widths: {listed}",
            "heads of one width: muP divides attention by it, which is then the same for all sizes",
            "choose sizes whose width / heads is the same",
        )
