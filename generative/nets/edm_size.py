"""What data tell EDM's networks, checked."""

from __future__ import annotations

from generative.errors import ConfigError
from generative.method import DataFacts
from generative.nets.edm_unet import UNetSize


def size_of(facts: DataFacts, method: str, classes: int | None, augment: int) -> UNetSize:
    """Shape and classes for a network.

    Args:
        facts: of the data.
        method: its name, for messages.
        classes: method.classes; None: as many as the data have; 0: the network is told none.
        augment: labels of augmentation that the network is told.

    Raises:
        ConfigError: they are no square images, or of another number of classes than the configuration says.
    """
    shape = tuple(facts.sample_shape or ())
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ConfigError(
            f"the method {method} with samples of shape {list(shape) if shape else 'unknown'}",
            expected="square images [C, R, R]",
            remedy="set data.name to digits, stacked_digits, folder or hub, with data.size and data.resize=true",
        )
    if classes and facts.classes and classes != facts.classes:
        raise ConfigError(
            f"method.classes={classes}, but the data have {facts.classes} classes",
            expected="as many classes as the data have, or 0 for a network that is told none",
            remedy=f"set method.classes={facts.classes}",
        )
    return UNetSize(shape[1], shape[0], (facts.classes or 0) if classes is None else classes, augment)
