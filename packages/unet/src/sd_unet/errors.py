"""What can be wrong with a UNet that somebody asks for."""


class UNetConfigError(ValueError):
    """A UNet that cannot be built, or a config.json that asks for what this UNet has not."""
