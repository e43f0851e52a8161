"""Train, sample, edit and evaluate generative models, from one laptop core to many nodes."""

__version__ = "0.1.0"
