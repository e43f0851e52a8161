"""What published form and ours are compared on: a small network, made waves, our training step, and that both agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from evaluation.benchmarks.plain_ncsnpp import PlainNcsnpp
from evaluation.benchmarks.plain_sgmse import PlainTraining, enhance
from generative.method import Alone, Context, DataFacts
from generative.methods.sgmse.config import SgmseConfig
from generative.methods.sgmse.enhancer import Enhancer
from generative.methods.sgmse.method import NET, Sgmse
from generative.methods.sgmse.network import build_network
from generative.methods.sgmse.noise import StreamNoise
from generative.nets.ncsnpp import Ncsnpp
from generative.randomness import Streams
from generative.training.config import OptimizerConfig
from generative.training.ema import Ema
from generative.training.optimizers import build_optimizer

TOLERANCE = 1e-3
"""Greatest difference of two results over the greatest magnitude, in float32."""


def network(config: SgmseConfig, device: torch.device) -> Ncsnpp:
    """A network all of whose layers have a say; a new one reads out next to nothing, whatever is in it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_network(config)
        for parameter in net.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
    assert isinstance(net, Ncsnpp)
    return net.to(device)


def crops(config: SgmseConfig, count: int, device: torch.device) -> dict[str, Tensor]:
    """Pairs as the trainer hands them out, made of noise: clean and noisy are float[count, n]."""
    ids = torch.arange(count)
    clean, noise = (0.1 * Streams(0).normal(name, ids, (config.length,)) for name in ("clean", "noise"))
    valid = torch.ones(count, dtype=torch.bool)
    batch = {"clean": clean, "noisy": clean + noise, "sample_id": ids, "position": ids, "valid": valid}
    return {name: tensor.to(device) for name, tensor in batch.items()}


def recordings(config: SgmseConfig, count: int, seconds: tuple[float, float]) -> list[Tensor]:
    """Files to enhance, made of noise, float[n] each; lengths are uniform between two numbers of seconds."""
    low, high = (round(each * config.sample_rate) for each in seconds)
    lengths = low + Streams(0).integers("length", range(count), high - low + 1)
    return [0.1 * Streams(0).normal("wave", [i], (n,))[0] for i, n in enumerate(lengths.tolist())]


class OurTraining:
    """The method's loss, the trainer's optimizer and average: a step without the records that the trainer keeps.

    Args:
        net: is trained.
        config: of the method.
        lr: learning rate.
    """

    def __init__(self, net: Ncsnpp, config: SgmseConfig, lr: float = 1e-4) -> None:
        self.net, self.method = net.train(), Sgmse(config, DataFacts(sample_shape=(config.length,)))
        settings = OptimizerConfig(lr=lr, betas=(0.9, 0.999), weight_decay=0.0, clip_norm=None)
        self.optimizer = build_optimizer(settings, net)
        self.average, self.steps = Ema(dict(net.named_parameters()), config.ema[0], warmup=True), 0

    def step(self, batch: Mapping[str, Tensor]) -> None:
        """One step on a batch of `crops`."""
        streams, count = Streams(0, self.steps), len(batch["noisy"])
        context = Context(self.steps, streams, count, {}, Alone(), streams.within("shared"))
        loss = self.method.loss(self.method.updates()[0], {NET: self.net}, batch, context)
        torch.autograd.backward(loss.value / count)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        self.average.update(self.steps)


def check_losses(ours: OurTraining, plain: PlainTraining, batch: Mapping[str, Tensor]) -> None:
    """Both have one loss at the same times and with the same noise.

    Raises:
        RuntimeError: they do not.
    """
    objective = ours.method.objective
    clean, noisy = ours.method.spectra(batch)
    state = objective.draw(clean, noisy, Streams(0), batch["sample_id"])
    pairs = [plain.pair(x, y) for x, y in zip(batch["clean"], batch["noisy"], strict=True)]
    x0, y = (torch.cat(spectra) for spectra in zip(*pairs, strict=True))
    with torch.no_grad():
        wanted = plain.loss(x0, y, state.t, state.noise)
        found = objective.terms(ours.net, clean, noisy, state)["loss"].mean()
    _compare("training loss", found, wanted)


def check_waves(enhancer: Enhancer, plain: PlainNcsnpp, waves: Sequence[Tensor]) -> None:
    """Both make the same waves of the same noise, but for the last window, where the published form hears padding.

    Args:
        enhancer: ours.
        plain: the network with the same weights.
        waves: noisy.

    Raises:
        RuntimeError: they do not.
    """
    streams = Streams(0)
    found = enhancer.enhance(waves, range(len(waves)), streams)
    for number, (one, wave) in enumerate(zip(found, waves, strict=True)):
        noise_of = partial(StreamNoise, streams, torch.tensor([number]))
        wanted = enhance(plain, enhancer.config, wave, noise_of)
        heard = len(wave) - enhancer.config.spectrogram.n_fft
        _compare(f"enhanced file {number}", one.wave[:heard], wanted[:heard])


def _compare(what: str, found: Tensor, wanted: Tensor) -> None:
    error = ((found - wanted).abs().max() / wanted.abs().max()).item()
    if not error <= TOLERANCE:  # NaN too
        raise RuntimeError(
            f"{what}: ours is off the published form's by {error:.1e} of its greatest value, at most {TOLERANCE:g} "
            "expected: what is timed is not the same computation"
        )
