"""The error of this package."""


class TrainError(ValueError):
    """Tell the user in one line what is wrong with a run, its settings or its data."""
