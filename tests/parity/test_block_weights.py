"""`lbw=` means the blocks of LDM's layout, whichever names the layers have here."""

import re

import pytest
import torch

from sd_textenc import TextEncoderError
from sd_textenc.prompts import parse_networks
from sd_textenc.prompts.block_weights import PRESETS, block_weights
from sd_unet import UNet, UNetConfig, ldm_key_map, sd15, sd21, sdxl

# As the extension lists them.
SD_17 = (
    "BASE IN01 IN02 IN04 IN05 IN07 IN08 M00 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11"
)
SDXL_12 = "BASE IN04 IN05 IN07 IN08 M00 OUT00 OUT01 OUT02 OUT03 OUT04 OUT05"
SDXL_20 = (
    "BASE IN00 IN01 IN02 IN03 IN04 IN05 IN06 IN07 IN08 M00 OUT00 OUT01 OUT02 OUT03 OUT04 OUT05 "
    "OUT06 OUT07 OUT08"
)
SD_26 = (
    "BASE IN00 IN01 IN02 IN03 IN04 IN05 IN06 IN07 IN08 IN09 IN10 IN11 M00 OUT00 OUT01 OUT02 OUT03 "
    "OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11"
)


def ldm_block(key: str) -> str | None:
    found = re.match(r"(input|middle|output)_blocks?\.(\d+)", key)
    if found is None:
        return None
    way = {"input": "IN", "output": "OUT"}.get(found[1])
    return "M00" if way is None else f"{way}{int(found[2]):02}"


def first_fitting(name: str, blocks: dict[str, float]) -> float | None:
    return next((v for beginning, v in blocks.items() if name.startswith(f"{beginning}.")), None)


@pytest.mark.parametrize(
    ("names", "config"),
    [(SD_17, sd15()), (SD_26, sd15()), (SD_26, sd21()), (SDXL_12, sdxl()), (SDXL_20, sdxl())],
)
def test_every_layer_has_the_strength_of_its_block(names: str, config: UNetConfig) -> None:
    wanted = {name: number + 0.5 for number, name in enumerate(names.split())}
    base, blocks = block_weights(",".join(map(str, wanted.values())))
    assert base == 0.5
    with torch.device("meta"):
        ours = UNet(config).state_dict()
    to_ldm = ldm_key_map(config).inverse()
    seen = set()
    for name in ours:
        block = ldm_block(to_ldm.rename(name))
        seen.add(block)
        expected = None if block is None else wanted.get(block, 0.0)
        assert first_fitting(name, blocks) == expected, name
    assert set(wanted) - seen == {"BASE"}
    assert all(any(name.startswith(f"{path}.") for name in ours) for path in blocks)


def test_a_tag_has_them_beside_its_strengths() -> None:
    prompt, (tag,) = parse_networks("a cat<lora:ink:0.5:2:lbw=MIDD>")
    assert prompt == "a cat"
    assert (tag.text_strength, tag.strength) == (0.5, 2.0)
    assert tag.blocks["mid_block"] == 1.0
    assert tag.blocks["down_blocks.0.attentions.1"] == 0.0
    assert parse_networks("<lora:ink:0.5:lbw=NONE>")[1][0].text_strength == 0.0
    assert {len(numbers) for numbers in PRESETS.values()} == {17}


@pytest.mark.parametrize("text", ["1,2,3", "R,0,0,0,0,0,0,0,0,0,0,0", "MIDDLE", ""])
def test_what_is_no_list_of_blocks_is_told(text: str) -> None:
    with pytest.raises(TextEncoderError, match="give 17 numbers"):
        parse_networks(f"<lora:a:1:lbw={text}>")
