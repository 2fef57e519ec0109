"""Text in, picture out: joins text encoder, denoiser, sampler and autoencoder."""
