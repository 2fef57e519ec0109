"""Adapters that are injected into a model and ejected without a trace."""
