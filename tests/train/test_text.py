"""A text encoder that is made for a run starts with words that a denoiser can tell apart."""

from sd_train.config import TextSettings
from sd_train.text import build_text_encoder


def test_each_word_of_a_new_encoder_has_a_state_of_its_own() -> None:
    captions = ["a red car on a rug", "a blue car on a rug", "a red dog on a rug"]
    settings = TextSettings(train=True, tokenizer="captions", context_length=12)
    encoder, _ = build_text_encoder(settings, captions, seed=0)
    red, blue, dog = encoder.encode(captions).hidden_states
    size = red.norm(dim=-1)
    # Position 0 is the start, so "red" stands at 2 and "car" at 3; two unrelated states are 1.4 of
    # their norm apart, those of CLIP's own initialisation less than half as much.
    assert (red - blue).norm(dim=-1)[2] > 1.1 * size[2]
    assert (red - dog).norm(dim=-1)[3] > 1.1 * size[3]
    assert (red - blue).norm(dim=-1)[3] > 0  # what stands before a word colours it
