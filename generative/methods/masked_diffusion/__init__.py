"""Masked diffusion language models (arXiv 2410.18514)."""
