"""Samplers by name, their settings as `a=b` changes, and what there is to be told before they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any, get_args, get_type_hints

from generative.errors import ConfigError, suggestion
from generative.methods.stsl.baselines.daps import Daps, daps
from generative.methods.stsl.baselines.dps import Dps, dps
from generative.methods.stsl.baselines.p2l_style import P2LStyle, p2l_style
from generative.methods.stsl.baselines.psld import Psld, psld
from generative.methods.stsl.baselines.resample import Resample, resample
from generative.methods.stsl.covariance import mmps
from generative.methods.stsl.problem import Problem
from generative.methods.stsl.sampler import PAPER, GuidedSampling, Stsl, guided, stsl
from generative.methods.stsl.surrogate import Terms
from generative.methods.stsl.walk import Restored


@dataclass(frozen=True)
class Method:
    """A sampler: its default settings, and how it runs with some; `note`: what its name does not say."""

    settings: Any
    run: Callable[[Problem, Any], Restored]
    note: str = ""


def _mmps(problem: Problem, settings: GuidedSampling) -> Restored:
    return guided(problem, partial(mmps, solver_steps=settings.solver_steps), settings)


METHODS: dict[str, Method] = {
    "stsl": Method(Stsl(), stsl),
    "stsl_paper": Method(PAPER, stsl, "eq. 4 as written; the weight of the data term is tuned by task"),
    "first_order": Method(Stsl(Terms(weight=0.3, data_loss="norm", eta=0.0)), stsl, "STSL without its trace term"),
    "mmps": Method(GuidedSampling(), _mmps),
    "dps": Method(Dps(), dps),
    "ldps": Method(Psld(gamma=0.0), psld),
    "gml_dps": Method(Psld(glue="fixed_point"), psld),
    "psld": Method(Psld(), psld),
    "resample": Method(Resample(), resample),
    "daps": Method(Daps(), daps),
    "p2l_style": Method(P2LStyle(), p2l_style, "reconstructed from memory of the paper, without its tuning of texts"),
}


def method_named(name: str) -> Method:
    """The sampler of that name; raises ConfigError."""
    if name not in METHODS:
        raise ConfigError(
            f"method {name!r}{suggestion(name, METHODS)}", f"one of {', '.join(METHODS)}", "correct --method"
        )
    return METHODS[name]


def with_changes(settings: Any, changes: Mapping[str, str]) -> Any:
    """Settings with some fields changed; those of `terms` by their own names (weight, eta, probe, ...).

    Raises:
        ConfigError: no such setting, or a value that cannot be.
    """
    nested = {field.name: getattr(settings, field.name) for field in fields(settings)}
    inner: dict[str, Any] = {key: value for key, value in nested.items() if is_dataclass(value)}
    for key, text in changes.items():
        owner = next((name for name, value in inner.items() if hasattr(value, key)), None)
        if owner is not None:
            inner[owner] = replace(inner[owner], **{key: _value(inner[owner], key, text)})
        elif key in nested and key not in inner:
            nested[key] = _value(settings, key, text)
        else:
            known = [*(k for k in nested if k not in inner), *(f.name for v in inner.values() for f in fields(v))]
            raise ConfigError(f"setting {key!r}{suggestion(key, known)}", f"one of {', '.join(known)}", "correct --set")
    return type(settings)(**nested | inner)


def _value(owner: Any, key: str, text: str) -> Any:
    kind = get_type_hints(type(owner))[key]
    if kind is bool and text in ("true", "false"):
        return text == "true"
    if get_args(kind) and text in get_args(kind):
        return text
    if kind in (int, float, str):
        try:
            return kind(text)
        except ValueError:
            pass
    wanted = ", ".join(map(str, get_args(kind))) or {bool: "true or false"}.get(kind, f"a value of type {kind}")
    raise ConfigError(f"setting {key}={text}", wanted, "correct --set")


def notes(settings: Any, samples: int) -> list[str]:
    """What a user should know of these settings before they run."""
    if isinstance(settings, Stsl) and settings.collapses and samples > 1:
        return [
            "init=ddim_inversion with ddim_eta=0 gives nearly the same image for every sample of a measurement: their "
            "spread is no uncertainty (init=q_sample, or ddim_eta above 0, draws from the posterior)"
        ]
    return []
