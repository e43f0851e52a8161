"""Speech enhancement as the trainer sees it: one network, one optimizer, waves in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from generative.errors import ConfigError
from generative.method import Batch, Context, DataFacts, Loss, Mean, Networks, NetworkSpec, Update
from generative.methods.sgmse.config import SgmseConfig
from generative.methods.sgmse.enhancer import Enhancer, SpeechSampler
from generative.methods.sgmse.fine_tuning import corrected_reverse
from generative.methods.sgmse.level import level
from generative.methods.sgmse.network import build_network
from generative.methods.sgmse.noise import StreamNoise
from generative.methods.sgmse.objective import Objective
from generative.methods.sgmse.parts import objective_of
from generative.methods.sgmse.wrapping import Network

NET = "net"


@dataclass(frozen=True)
class Sgmse:
    """Score models and Schroedinger bridges for speech (arXiv 2208.05830, 2409.10753, 2309.09677).

    Batches hold clean and noisy float[B, n], n = (frames - 1) hop, as loud as they are.
    """

    config: SgmseConfig
    facts: DataFacts

    def __post_init__(self) -> None:
        config, shape = self.config, self.facts.sample_shape
        multiple = config.multiple
        if config.frames % multiple:
            raise ConfigError(
                f"method.frames={config.frames}, which the network cannot halve",
                f"a multiple of {multiple}",
                f"set method.frames={-(-config.frames // multiple) * multiple}, or fewer method.network.multipliers",
            )
        if tuple(shape or ()) != (config.length,):
            raise ConfigError(
                f"crops of {shape} samples, of which the transform does not make method.frames={config.frames} frames",
                f"(frames - 1) hop = {config.length} samples",
                f"set data.length={config.length}",
            )

    @cached_property
    def objective(self) -> Objective:
        """What is minimised."""
        return objective_of(self.config)

    def networks(self) -> Mapping[str, NetworkSpec]:
        """The network, of which averages are kept as released."""
        config = self.config
        build = partial(build_network, config)
        return {NET: NetworkSpec(build, ema=tuple(config.ema), ema_warmup=True, init_from=config.init_from)}

    def updates(self) -> Sequence[Update]:
        """One. Fine-tuning runs the network as in sampling, in eval mode, which only batch statistics notice."""
        modes = {NET: "eval"} if self.config.fine_tuning else {}
        return [Update("score", trains=NET, modes=modes)]  # type: ignore[arg-type]

    def divisor(self, update: Update, batch: Batch, context: Context) -> Tensor:
        """Number of pairs."""
        return batch["valid"].sum()

    def loss(self, update: Update, nets: Networks, batch: Batch, context: Context) -> Loss:
        """Sum over pairs of their losses at random times."""
        clean, noisy = self.spectra(batch)
        net, ids, valid = self._called(nets, batch), batch["sample_id"], batch["valid"]
        if self.config.fine_tuning is None:
            state = self.objective.draw(clean, noisy, context.streams, ids)
            terms = self.objective.terms(net, clean, noisy, state)
        else:
            terms = {"loss": self._fine_tuning_loss(net, clean, noisy, batch, context)}
        value = torch.where(valid, terms["loss"], 0.0).sum()
        metrics = {name: Mean.of(term, valid) for name, term in terms.items() if name != "loss"}
        if self.config.wrapping.loss_type != "data_prediction" or self.config.fine_tuning:
            # The published losses are sums over bins: several hundred, where a network that gives 0 has 0.5 a bin.
            metrics["loss_per_bin"] = Mean.of(terms["loss"] / clean[0].numel(), valid)
        return Loss(value, metrics)

    def spectra(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Clean and noisy compressed spectrograms of a batch, complex [B, 1, F, K] each."""
        clean, noisy = batch["clean"].float(), batch["noisy"].float()
        loud = level(clean, noisy, self.config.normalize)
        both = self.objective.spectrogram.forward(torch.cat([clean / loud, noisy / loud]))
        return both[: len(clean)], both[len(clean) :]

    def _called(self, nets: Networks, batch: Batch) -> Network:
        """The network with the rows that count, for those that have batch statistics."""
        return lambda x_t, y, t: nets[NET](x_t, y, t, batch["valid"])

    def _fine_tuning_loss(self, net: Network, clean: Tensor, noisy: Tensor, batch: Batch, context: Context) -> Tensor:
        chosen, objective = self.config.fine_tuning, self.objective
        assert chosen is not None
        # The steps of the trainer are counted by the streams, those of the reverse process by their names.
        noise = StreamNoise(context.streams.within(f"crp/{context.step}"), batch["sample_id"], noisy)
        found, _ = corrected_reverse(
            objective.wrapping.score(net, objective.process),
            objective.process,
            clean,
            noisy,
            noise,
            steps=chosen.steps,
            start=chosen.start,
            step_rule=chosen.step_rule,
        )
        return found

    def state(self) -> Mapping[str, Tensor]:
        """None."""
        return {}

    def sampler(self, nets: Networks) -> SpeechSampler:
        """Enhances condition["noisy"]; see `enhancer` for waves of many lengths."""
        return SpeechSampler(self.enhancer(nets))

    def enhancer(self, nets: Networks, batch_size: int = 8) -> Enhancer:
        """What enhances waves of any length with the trained network."""
        net = nets[NET]
        assert isinstance(net, nn.Module)
        device = next(net.parameters()).device
        return Enhancer(self.config, net, device, batch_size)

    @cached_property
    def _multiply_adds(self) -> int:
        """Of one call of the network on one training crop."""
        with torch.device("meta"):
            return build_network(self.config).multiply_adds(self.config.bins, self.config.frames)

    def flops(self, batch: Batch) -> int:
        """Of one step: two for each multiply-add, backward twice the forward, and the steps without gradient."""
        calls = 3 + (self.config.fine_tuning.steps - 1 if self.config.fine_tuning else 0)
        return 2 * self._multiply_adds * calls * len(batch["noisy"])
