"""CLIP text encoders and tokenizers that work offline."""
