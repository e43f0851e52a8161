"""Diffusion models of captioned images, in the parts of Stable Diffusion: small ones, to edit and to attack."""
