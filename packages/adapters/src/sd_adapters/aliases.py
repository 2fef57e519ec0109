"""Names that other layouts of a model give its layers, such as SDXL's in kohya's files."""

from torch import nn

from sd_adapters.targets import flat_name, keys_by_name
from sd_checkpoint import KeyMap

_WEIGHT = ".weight"


def aliases_through(key_map: KeyMap, model: nn.Module, prefix: str) -> dict[str, str]:
    """Return for each layer's name in another layout its own: what ``load_loras`` wants.

    ``key_map`` leads from the other layout's keys to the model's: ``sd_unet.ldm_key_map`` gives
    ``lora_unet_input_blocks_4_1_...``, which is how kohya's scripts name SDXL's layers.
    """
    back = key_map.inverse()
    return {
        flat_name(prefix, back.rename(key).removesuffix(_WEIGHT)): name
        for name, key in keys_by_name(model, prefix).items()
    }
