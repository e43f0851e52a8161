"""Configuration of speech enhancement by score models and Schroedinger bridges. Field names are those of the parts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from generative.config import Config
from generative.config_messages import combination
from generative.nets.dcunet_config import DcunetConfig
from generative.nets.ncsnpp_config import NcsnppConfig


class SpectrogramConfig(Config):
    """From waveforms to compressed complex spectrograms."""

    n_fft: PositiveInt = 510
    """Samples of a window; F = n_fft / 2 + 1 bins."""
    hop: PositiveInt = 128
    """Samples from frame to frame."""
    window: Literal["hann", "sqrthann"] = "hann"
    """Hann's window or its square root, of analysis and synthesis."""
    transform: Literal["exponent", "log", "none"] = "exponent"
    """Of magnitudes m: factor * m^exponent, factor * log(1 + m), or m."""
    exponent: float = Field(default=0.5, gt=0, le=1)
    """Compression of magnitudes by `transform: exponent`."""
    factor: float = Field(default=0.15, gt=0)
    """Scale of the compressed magnitudes, which brings most of them below 1."""


class OuveConfig(Config):
    """Ornstein-Uhlenbeck process with variance that explodes."""

    name: Literal["ouve"] = "ouve"
    theta: float = Field(default=1.5, gt=0)
    """Stiffness: how fast the mean goes to the noisy spectrogram."""
    sigma_min: float = Field(default=0.05, gt=0)
    """g(t) = sigma_min r^t sqrt(2 ln r), r = sigma_max / sigma_min."""
    sigma_max: float = Field(default=0.5, gt=0)
    """See sigma_min; must be larger."""
    t_eps: float = Field(default=0.03, gt=0, lt=1)
    """Earliest time."""


class SbveConfig(Config):
    """Schroedinger bridge with variance that explodes."""

    name: Literal["sbve"] = "sbve"
    k: float = Field(default=2.6, gt=1)
    """Base of the diffusion g(t), which grows as k^t."""
    c: float = Field(default=0.4, gt=0)
    """g(t)^2 = c k^(2t)."""
    t_eps: float = Field(default=1e-4, gt=0, lt=1)
    """Earliest time; the released code trains from 0.03 on, but samples down to 1e-4."""


class BbedConfig(Config):
    """Brownian bridge with exponential diffusion."""

    name: Literal["bbed"] = "bbed"
    k: float = Field(default=2.6, gt=1)
    """Base of the diffusion g(t), which grows as k^t."""
    theta: float = Field(default=0.52, gt=0)
    """g(t)^2 = theta k^(2t)."""
    t_eps: float = Field(default=0.03, gt=0, lt=1)
    """Earliest time."""


NetworkConfig = Annotated[NcsnppConfig | DcunetConfig, Field(discriminator="name")]
ProcessConfig = Annotated[OuveConfig | SbveConfig | BbedConfig, Field(discriminator="name")]


class WrappingConfig(Config):
    """What the network's output means. Scalings are for v2 networks: minus the output of the others is the score."""

    loss_type: Literal["score_matching", "denoiser", "data_prediction"] = "score_matching"
    """What the network learns: the score, the mean of x_t, or the clean spectrogram x0."""
    network_scaling: Literal["none", "1/sigma", "1/t"] = "none"
    """What the output is multiplied by; sigma is the standard deviation of the process at t."""
    c_in: Literal["1", "edm"] = "1"
    """Scale of the input: 1, or 1 / sqrt(sigma^2 + sigma_data^2)."""
    c_out: Literal["1", "sigma", "1/sigma", "edm"] = "1"
    """Scale of the output; edm: sigma sigma_data / sqrt(sigma^2 + sigma_data^2)."""
    c_skip: Literal["0", "edm"] = "0"
    """edm is for processes whose std grows with time: at the end of a bridge it jumps to 1."""
    sigma_data: float = Field(default=0.1, gt=0)
    """Standard deviation of the data that edm's scalings assume."""


class FineTuningConfig(Config):
    """Training on the network's own reverse process (CRP, arXiv 2309.09677), from weights that are trained already."""

    steps: PositiveInt = 1
    """Reverse steps; only the last has a gradient."""
    start: float = Field(default=0.5, gt=0, le=1)
    """Time at which they begin."""
    step_rule: Literal["grid", "uniform"] = "grid"
    """As in sampling."""


class SpeechSamplingConfig(Config):
    """How noise is taken away. What belongs to another sampler than the chosen one has no effect."""

    sampler: Literal[
        "auto", "predictor_corrector", "euler_maruyama", "heun", "ode", "exponential", "bridge_ode", "bridge_sde"
    ] = "auto"
    """auto: bridge_ode for a bridge sbve that predicts data, else predictor_corrector; both as published."""
    steps: PositiveInt = 30
    """N. Network calls are N (exponential, bridge, euler_maruyama), N (corrector_steps + 1) (predictor_corrector),
    2 N + 1 (heun), as many as it takes (ode)."""
    start: float | None = Field(default=None, gt=0, le=1)
    """Time at which sampling starts (not for bridge_ode, bridge_sde); null: at the end of the process."""
    end: float | None = Field(default=None, gt=0, lt=1)
    """Earliest time; null: t_eps, or 1e-4 for bridge_ode and bridge_sde."""
    corrector: Literal["ald", "langevin", "none"] = "ald"
    """Of predictor_corrector."""
    corrector_steps: PositiveInt = 1
    """Of predictor_corrector, at each time."""
    snr: float = Field(default=0.5, gt=0)
    """Step size of the corrector; 0.33 for dereverberation."""
    step_rule: Literal["grid", "uniform"] = "grid"
    """Steps of predictor_corrector: as released since June 2024, or before."""
    order: Literal[1, 2] = 2
    """Of exponential."""
    stochastic: bool = False
    """exponential with fresh noise in each step."""
    spacing: Literal["time", "log_snr"] = "time"
    """Times of exponential: equal steps of t, or of the signal-to-noise ratio."""
    network_time: Literal["current", "previous"] = "current"
    """Time that the network of bridge_ode, bridge_sde is told: of the new state (released), or, as in training, of the
    one that it is given."""
    least_network_time: float = Field(default=0.0, ge=0, lt=1)
    """The network of bridge_ode, bridge_sde is told no earlier time than this."""
    tolerance: float = Field(default=1e-5, gt=0)
    """Relative and absolute, of ode."""
    padding: Literal["zero", "reflection", "replication"] = "reflection"
    """How frames are added at the end, up to the number that the network can halve (released: zero for v1)."""
    window: PositiveInt = 1024
    """Frames that the network sees at once; longer files are done in windows, joined in every network call."""
    overlap: float = Field(default=0.25, gt=0, le=0.5)
    """Part of a window that it shares with the next, in which one fades into the other."""
    attenuation_limit: float | None = Field(default=None, ge=0)
    """dB. At most so much is taken away: the result is (1 - r) estimate + r noisy with r = 10^(-limit / 20). What is
    left of the noise covers the estimate's faults; it helps the more, the more of them there are. null: no limit."""


class SgmseConfig(Config):
    """Speech enhancement and dereverberation in the complex STFT domain (SGMSE+, arXiv 2208.05830 and 2409.10753)."""

    name: Literal["sgmse"] = "sgmse"
    """Picks this method."""
    network: NetworkConfig = NcsnppConfig()
    sample_rate: PositiveInt = 16000
    """Of the waveforms, in Hz."""
    spectrogram: SpectrogramConfig = SpectrogramConfig()
    frames: PositiveInt = 256
    """Frames K of a training sample."""
    normalize: Literal["noisy", "clean", "not"] = "noisy"
    """Whose largest magnitude a pair is divided by."""
    process: ProcessConfig = OuveConfig()
    wrapping: WrappingConfig = WrappingConfig()
    weighting: Literal["1", "sigma^2", "edm"] = "1"
    """Of the loss of denoisers, by noise level."""
    l1_weight: float = Field(default=1e-3, ge=0)
    """Of the time-domain term of data prediction."""
    pesq_weight: float = Field(default=0.0, ge=0)
    """Of the PESQ term of data prediction (needs torch-pesq); published: 5e-4."""
    fine_tuning: FineTuningConfig | None = None
    """Train on the reverse process instead; init_from names the weights to start from."""
    sampling: SpeechSamplingConfig = SpeechSamplingConfig()
    ema: list[float] = [0.999]
    """Decay rates of the averages of the network, each in (0, 1)."""
    init_from: str | None = None
    """Start the network from a run folder or checkpoint."""

    @property
    def version(self) -> Literal["v1", "v2"]:
        """How the network is wrapped: v1 if minus its output is the score."""
        return "v2" if isinstance(self.network, NcsnppConfig) and self.network.variant == "v2" else "v1"

    @property
    def multiple(self) -> int:
        """What the number of frames must be a multiple of; DCUNet pads them itself."""
        return getattr(self.network, "multiple", 1)

    @property
    def is_bridge(self) -> bool:
        """Whether the samplers of the Schroedinger bridge apply."""
        return self.process.name == "sbve" and self.wrapping.loss_type == "data_prediction"

    @property
    def length(self) -> int:
        """Samples of a training crop, of which the transform makes `frames` frames."""
        return (self.frames - 1) * self.spectrogram.hop

    @property
    def bins(self) -> int:
        """F."""
        return self.spectrogram.n_fft // 2 + 1

    @model_validator(mode="after")
    def _consistent(self) -> SgmseConfig:
        if not all(0.0 < decay < 1.0 for decay in self.ema):
            raise combination(f"ema={self.ema}", "decay rates above 0 and below 1", "correct method.ema")
        if self.fine_tuning is not None and self.init_from is None:
            raise combination(
                "fine_tuning without init_from",
                "a trained network to start from",
                "set method.init_from to a run folder, checkpoint or imported model",
            )
        if self.sampling.sampler.startswith("bridge") and not self.is_bridge:
            raise combination(
                f"sampling.sampler={self.sampling.sampler} with process.name={self.process.name} and "
                f"wrapping.loss_type={self.wrapping.loss_type}",
                "process.name=sbve with wrapping.loss_type=data_prediction",
                "set method.sampling.sampler=auto",
            )
        if self.sampling.window % self.multiple or self.sampling.window < 2 * self.multiple:
            fitting = max(2, -(-self.sampling.window // self.multiple)) * self.multiple
            raise combination(
                f"sampling.window={self.sampling.window}, windows that the network cannot halve",
                f"a multiple of {self.multiple}, {2 * self.multiple} or more",
                f"set method.sampling.window={fitting}",
            )
        if self.version == "v1" and self.wrapping != WrappingConfig():
            raise combination(
                "wrapping with scalings or another loss, around a network that is not of variant v2",
                "score matching without scalings, or network.name=ncsnpp with network.variant=v2",
                "leave out method.wrapping, or set method.network.variant=v2",
            )
        fitting = self.network.fitting_bins(self.bins)
        if fitting != self.bins:
            raise combination(
                f"spectrogram.n_fft={self.spectrogram.n_fft} gives {self.bins} bins, which the network cannot halve",
                f"{fitting} bins, or others that its strides divide",
                f"set method.spectrogram.n_fft={2 * fitting - 2}, or fewer levels in method.network.multipliers",
            )
        return self
