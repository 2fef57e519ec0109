"""The KL autoencoder of latent diffusion and its training losses."""
