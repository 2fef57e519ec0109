"""The text-conditioned latent UNet of Stable Diffusion."""
