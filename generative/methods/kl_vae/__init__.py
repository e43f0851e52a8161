"""KL autoencoders: small latents for latent diffusion."""
