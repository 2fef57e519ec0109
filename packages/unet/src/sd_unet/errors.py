"""What can be wrong with a UNet that somebody asks for, or with what it is given."""


class UNetConfigError(ValueError):
    """A UNet that cannot be built, or a config.json that asks for what this UNet has not."""


class UNetInputError(ValueError):
    """Conditions that this UNet wants and was not given, or was given and does not take."""
