"""One-step distillation of diffusion models by f-divergences (arXiv 2502.15681)."""
