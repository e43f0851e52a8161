"""Samplers by name, their settings as `a=b` changes, and what there is to be told before they run."""

from __future__ import annotations

import math
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
    """A sampler.

    Args:
        settings: its defaults.
        run: how it runs with some.
        note: what its name does not say.
        calls: setting that says how often a step asks the network, as papers count; "": once.
        weight: setting that is the length of its steps towards the data.
        differentiates_twice: decoders are differentiated twice, which needs their activations.
    """

    settings: Any
    run: Callable[[Problem, Any], Restored]
    note: str = ""
    calls: str = ""
    weight: str = "weight"
    differentiates_twice: bool = False

    def nfe(self, settings: Any) -> int:
        """Evaluations as papers count them: of each step one, or `calls` of them (a setting's name)."""
        return int(settings.steps * (getattr(settings, self.calls) if self.calls else 1))


def _mmps(problem: Problem, settings: GuidedSampling) -> Restored:
    return guided(problem, partial(mmps, solver_steps=settings.solver_steps), settings)


CODE = ("extra", "extra_weight")
"""Settings that only code can give."""
SHARES = ("ddim_eta", "last_rate")
"""Settings of at most 1."""
DIVISORS = ("probe_size", "tau", "sigma_min", "sigma_max", "flow_end")
"""Settings that must not be 0."""

METHODS: dict[str, Method] = {
    "stsl": Method(Stsl(), stsl, calls="inner"),
    "stsl_paper": Method(PAPER, stsl, "eq. 4 as written; the weight of the data term is tuned by task", "inner"),
    "first_order": Method(
        Stsl(Terms(weight=0.6, data_loss="norm", eta=0.0)), stsl, "STSL without its trace term", "inner"
    ),
    "mmps": Method(GuidedSampling(), _mmps, differentiates_twice=True),
    "dps": Method(Dps(), dps, weight="scale"),
    "ldps": Method(Psld(gamma=0.0), psld, weight="omega"),
    "gml_dps": Method(Psld(glue="fixed_point"), psld, weight="omega"),
    "psld": Method(Psld(), psld, weight="omega"),
    "resample": Method(Resample(), resample, weight="scale"),
    "daps": Method(Daps(), daps, calls="flow_steps", weight="rate"),
    "p2l_style": Method(
        P2LStyle(), p2l_style, "reconstructed from memory of the paper, without its tuning of texts", weight="rho"
    ),
}


def method_named(name: str) -> Method:
    """The sampler of that name; raises ConfigError."""
    if name not in METHODS:
        raise ConfigError(
            f"method {name!r}{suggestion(name, METHODS)}", f"one of {', '.join(METHODS)}", "correct --method"
        )
    return METHODS[name]


def settings_text(settings: Any) -> str:
    """All settings as `--set` takes them: a=b, ..."""
    parts: list[str] = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            parts.append(settings_text(value))
        elif field.name not in CODE:
            said = (
                str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else value
            )
            parts.append(f"{field.name}={said}")
    return ", ".join(parts)


def with_changes(settings: Any, changes: Mapping[str, str]) -> Any:
    """Settings with some fields changed; those of `terms` by their own names (weight, eta, probe, ...).

    Raises:
        ConfigError: no such setting, or a value that cannot be.
    """
    nested = {field.name: getattr(settings, field.name) for field in fields(settings)}
    inner: dict[str, Any] = {key: value for key, value in nested.items() if is_dataclass(value)}
    known = {key: "" for key in nested if key not in inner}
    known |= {field.name: name for name, value in inner.items() for field in fields(value)}
    for key in CODE:
        known.pop(key, None)
    for key, text in changes.items():
        if key not in known:
            raise ConfigError(f"setting {key!r}{suggestion(key, known)}", f"one of {', '.join(known)}", "correct --set")
        owner = known[key]
        if owner:
            inner[owner] = replace(inner[owner], **{key: _value(inner[owner], key, text)})
        else:
            nested[key] = _value(settings, key, text)
    return type(settings)(**nested | inner)


def _value(owner: Any, key: str, text: str) -> Any:
    kind = get_type_hints(type(owner))[key]
    if kind is bool and text in ("true", "false"):
        return text == "true"
    if get_args(kind) and text in get_args(kind):
        return text
    least, most = (1, math.inf) if kind is int else (0.0, 1.0 if key in SHARES else math.inf)
    if kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if least <= value <= most and math.isfinite(value) and (value > 0 or key not in DIVISORS):
            return value
    limit = f"{least:g} or more" if math.isinf(most) else f"{least:g} to {most:g}"
    limit = "a number above 0" if key in DIVISORS else f"a {'whole ' if kind is int else ''}number, {limit}"
    wanted = "true or false" if kind is bool else ", ".join(map(str, get_args(kind))) or limit
    raise ConfigError(f"setting {key}={text}", wanted, "correct --set")


def notes(settings: Any, samples: int) -> list[str]:
    """What a user should know of these settings before they run."""
    if isinstance(settings, Stsl) and settings.collapses and samples > 1:
        return [
            "init=ddim_inversion with ddim_eta=0 gives nearly the same image for every sample of a measurement: their "
            "spread is no uncertainty (init=q_sample, or ddim_eta above 0, draws from the posterior)"
        ]
    return []
