"""Which exceptions are the user's affair, and how they are told."""

_OURS = (
    "sd_adapters",
    "sd_checkpoint",
    "sd_ops",
    "sd_pipeline",
    "sd_sampler",
    "sd_scenes",
    "sd_textenc",
    "sd_train",
    "sd_unet",
    "sd_vae",
    "sdcli",
)


class CommandError(ValueError):
    """Report an option that makes no sense, in one line with the limit and the mend."""


def is_user_error(error: Exception) -> bool:
    """Tell whether one of our packages defines the error's class.

    By name, so that no package has to be imported to catch what it never raised.
    """
    return type(error).__module__.split(".")[0] in _OURS


def one_line(message: str) -> str:
    """Return a message with its line breaks taken out."""
    return " ".join(message.split())
