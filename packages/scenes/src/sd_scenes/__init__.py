"""Captioned scenes drawn by code, and the model trained on them."""
