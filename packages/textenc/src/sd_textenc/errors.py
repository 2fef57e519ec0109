"""The one error a user of this package can cause."""


class TextEncoderError(ValueError):
    """Report a text encoder or tokenizer that cannot be built or used as asked."""
