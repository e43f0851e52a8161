"""The network of a configuration: forward(x_t, y, t, valid=None), all complex [B, 1, F, K] but t [B], to the same."""

from __future__ import annotations

from generative.methods.sgmse.config import SgmseConfig
from generative.nets.dcunet import Dcunet
from generative.nets.dcunet_config import DcunetConfig
from generative.nets.ncsnpp import Ncsnpp

Network = Ncsnpp | Dcunet


def build_network(config: SgmseConfig) -> Network:
    """The network; ConfigError for widths that it cannot have."""
    network = config.network
    return Dcunet(network) if isinstance(network, DcunetConfig) else Ncsnpp(network)
