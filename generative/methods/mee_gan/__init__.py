"""A GAN with codes, and their entropy against mode collapse (MEE, arXiv 2208.12055)."""
