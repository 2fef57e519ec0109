"""What people write into prompts beside words."""

from sd_textenc.prompts.composition import WeightedPrompt, parse_composition
from sd_textenc.prompts.editing import EditedPrompt, parse_editing
from sd_textenc.prompts.emphasis import EMPHASIS, Emphasis, Span, escape, parse_emphasis
from sd_textenc.prompts.expansion import Wildcards, expand
from sd_textenc.prompts.networks import NetworkTag, parse_networks
from sd_textenc.prompts.styles import Style, Styles

__all__ = [
    "EMPHASIS",
    "EditedPrompt",
    "Emphasis",
    "NetworkTag",
    "Span",
    "Style",
    "Styles",
    "WeightedPrompt",
    "Wildcards",
    "escape",
    "expand",
    "parse_composition",
    "parse_editing",
    "parse_emphasis",
    "parse_networks",
]
