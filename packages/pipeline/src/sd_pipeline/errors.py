"""The one error a user of this package can cause."""


class PipelineError(ValueError):
    """Say in one line which value is wrong, its limit and the mend."""
