"""STSL (arXiv 2312.00852) and other posterior samplers: inverse problems with diffusion priors."""
