"""The command line of the latent-diffusion system."""
