"""What a training step of SGMSE and the enhancement of files cost: time of the published form over that of ours.

On a CPU the FIR filters take much of the published form's time, so each ratio is also told over the same plain code
with depthwise convolutions in their place. Enhancement is compared at equal network calls; `equal_quality` is for
`sgmse_long`, which finds out how few calls are as good as the published sampler's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from evaluation.benchmarks.figure import Figure, figure
from evaluation.benchmarks.plain_ncsnpp import PlainNcsnpp, plain_copy
from evaluation.benchmarks.plain_sgmse import PlainTraining, enhance
from evaluation.benchmarks.sgmse_cases import OurTraining, check_losses, check_waves, crops, network, recordings
from evaluation.benchmarks.timing import interleave, one_thread
from evaluation.estimate import Ratio, ratio_of_medians
from generative.methods.sgmse.config import SgmseConfig
from generative.methods.sgmse.enhancer import Enhancer
from generative.randomness import Streams

CONFIG = SgmseConfig.model_validate(
    {
        "network": {
            "name": "ncsnpp",
            "width": 16,
            "multipliers": [1, 2, 2, 2],
            "res_blocks": 1,
            "attention_levels": [],
        },
        "sample_rate": 8000,
        "spectrogram": {"n_fft": 254, "hop": 64, "exponent": 0.5, "factor": 0.2},
        "frames": 64,
        "process": {"name": "sbve"},
        "wrapping": {"loss_type": "data_prediction"},
        "sampling": {"steps": 3},
    }
)
CPU = torch.device("cpu")
FORMS = {"": "published form", "_depthwise": "published form but for FIR by depthwise convolutions"}
"""Endings of figures' names, and what ours is compared with."""


@dataclass(frozen=True)
class Case:
    """What is timed.

    Args:
        config: of the method.
        batch: pairs in a training step.
        files: recordings to enhance.
        seconds: their least and greatest length.
    """

    config: SgmseConfig = CONFIG
    batch: int = 8
    files: int = 8
    seconds: tuple[float, float] = (1.0, 3.0)


QUICK = Case(batch=2, files=2, seconds=(0.5, 1.0))


Pair = tuple[str, Callable[[], object], Callable[[], object]]
"""Ending of the figure's name, the plain form, ours."""


def figures(pairs: int, device: torch.device = CPU, case: Case = Case()) -> dict[str, Figure]:
    """train_speedup, enhance_speedup_equal_calls, and both over the plain form with depthwise FIR.

    Args:
        pairs: timings of each form, taken in turns.
        device: of the networks.
        case: what is timed.

    Raises:
        RuntimeError: the two forms do not compute the same.
    """
    found: dict[str, Figure] = {}
    with one_thread():
        where = f"one thread, {device.type}"
        for ending, plain, ours in training(case, device):
            times = interleave(plain, ours, pairs, device=device)
            goal, note = None if ending else ">= 1.3", f"training step of {case.batch} pairs: {FORMS[ending]} over ours"
            found[f"train_speedup{ending}"] = figure(ratio_of_medians(*times), goal, f"{note}; {where}")
        for ending, plain, ours in enhancement(case, device):
            times = interleave(plain, ours, pairs, warmup=1, device=device)
            calls, goal = case.config.sampling.steps, None if ending else ">= 1.2"
            note = (
                f"{case.files} files, {calls} network calls each, one after the other in the {FORMS[ending]}, over ours"
            )
            name = f"enhance_speedup{ending or '_equal_calls'}"
            found[name] = figure(ratio_of_medians(*times), goal, f"{note}; {where}")
    return found


def training(case: Case, device: torch.device) -> Iterator[Pair]:
    """A whole step each."""
    batch = crops(case.config, case.batch, device)
    for ending in FORMS:
        net = network(case.config, device)
        plain, ours = PlainTraining(plain_copy(net, bool(ending)), case.config), OurTraining(net, case.config)
        check_losses(ours, plain, batch)
        yield ending, partial(plain.step, batch["clean"], batch["noisy"]), partial(ours.step, batch)


def enhancement(case: Case, device: torch.device) -> Iterator[Pair]:
    """All files once each."""
    net, waves = network(case.config, device).eval(), recordings(case.config, case.files, case.seconds)
    ours = Enhancer(case.config, net, device)
    for ending in FORMS:
        plain = plain_copy(net, bool(ending)).eval()
        check_waves(ours, plain, waves)
        yield (
            ending,
            partial(_one_by_one, plain, case.config, waves),
            partial(ours.enhance, waves, range(case.files), Streams(0)),
        )


def equal_quality(
    reference: SgmseConfig, chosen: SgmseConfig, pairs: int, case: Case = Case(files=4), device: torch.device = CPU
) -> Ratio:
    """Time of the published form with the sampler of `reference` over that of ours with the sampler of `chosen`.

    The network is untrained, as time does not depend on weights.

    Args:
        reference: predictor and corrector of a score model.
        chosen: the same model with another sampler.
        pairs: timings of each, taken in turns.
        case: which files; its configuration is not used.
        device: of the network.

    Raises:
        RuntimeError: the published form does not compute what ours does with the sampler of `reference`.
    """
    net, waves = network(reference, device).eval(), recordings(reference, case.files, case.seconds)
    plain, ours = plain_copy(net).eval(), Enhancer(chosen, net, device)
    few = reference.sampling.model_copy(update={"steps": 2})  # an untrained network blows rounding up over many
    check_waves(Enhancer(reference.model_copy(update={"sampling": few}), net, device), plain, waves)
    with one_thread():
        times = interleave(
            partial(_one_by_one, plain, reference, waves),
            partial(ours.enhance, waves, range(case.files), Streams(0)),
            pairs,
            warmup=1,
            device=device,
        )
    return ratio_of_medians(*times)


def _one_by_one(plain: PlainNcsnpp, config: SgmseConfig, waves: Sequence[Tensor]) -> None:
    for wave in waves:
        enhance(plain, config, wave)
