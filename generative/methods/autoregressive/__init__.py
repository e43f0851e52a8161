"""Next-token prediction, the baseline of masked diffusion."""
