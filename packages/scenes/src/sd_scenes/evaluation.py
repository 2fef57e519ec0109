"""Prompts whose right answer is known, to judge a model by."""

from dataclasses import dataclass, replace
from random import Random

from sd_scenes.backgrounds import DAY, INDOORS
from sd_scenes.captions import plain_caption
from sd_scenes.composition import compose
from sd_scenes.scene import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalPrompt:
    """A prompt and what its picture has to show; None is what the prompt leaves open."""

    text: str
    groups: tuple[Group, ...]
    relation: str | None
    place: str | None
    place_colour: str | None
    background: str | None

    @property
    def thing(self) -> str:
        """The first thing."""
        return self.groups[0].thing

    @property
    def count(self) -> int:
        """How many of the first thing."""
        return self.groups[0].count

    @property
    def colour(self) -> str | None:
        """The colour of the first thing."""
        return self.groups[0].colour


def eval_prompts(seed: int, num_prompts: int) -> list[EvalPrompt]:
    """Return plainly worded prompts, none of them twice, from no training set's random numbers."""
    prompts: dict[str, EvalPrompt] = {}
    index = 0
    while len(prompts) < num_prompts:
        scene = compose(Random(f"eval/{seed}/{index}"))
        index += 1
        quiet = scene.background in (DAY, INDOORS)
        scene = replace(scene, names_background=scene.names_background and not quiet)
        text = plain_caption(scene)
        prompts[text] = EvalPrompt(
            text=text,
            groups=scene.groups,
            relation=scene.relation,
            place=scene.place if scene.names_place else None,
            place_colour=scene.place_colour
            if scene.names_place and scene.names_place_colour
            else None,
            background=scene.background if scene.names_background else None,
        )
    return list(prompts.values())
