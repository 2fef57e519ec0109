"""Noise schedules, training targets and diffusion samplers on plain tensors."""
