"""EDM: diffusion models of images with preconditioned denoisers (Karras et al. 2022)."""
