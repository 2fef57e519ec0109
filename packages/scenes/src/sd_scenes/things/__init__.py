"""The things that scenes are made of, one drawing function each."""

from sd_scenes.thing import Thing
from sd_scenes.things.apple import APPLE
from sd_scenes.things.ball import BALL
from sd_scenes.things.balloon import BALLOON
from sd_scenes.things.bird import BIRD
from sd_scenes.things.boat import BOAT
from sd_scenes.things.book import BOOK
from sd_scenes.things.bus import BUS
from sd_scenes.things.cactus import CACTUS
from sd_scenes.things.car import CAR
from sd_scenes.things.cat import CAT
from sd_scenes.things.chair import CHAIR
from sd_scenes.things.cloud import CLOUD
from sd_scenes.things.cup import CUP
from sd_scenes.things.dog import DOG
from sd_scenes.things.duck import DUCK
from sd_scenes.things.fish import FISH
from sd_scenes.things.flower import FLOWER
from sd_scenes.things.frog import FROG
from sd_scenes.things.hat import HAT
from sd_scenes.things.horse import HORSE
from sd_scenes.things.house import HOUSE
from sd_scenes.things.lamp import LAMP
from sd_scenes.things.moon import MOON
from sd_scenes.things.mushroom import MUSHROOM
from sd_scenes.things.pig import PIG
from sd_scenes.things.rabbit import RABBIT
from sd_scenes.things.sheep import SHEEP
from sd_scenes.things.star import STAR
from sd_scenes.things.sun import SUN
from sd_scenes.things.tree import TREE
from sd_scenes.things.turtle import TURTLE
from sd_scenes.things.umbrella import UMBRELLA

THINGS: dict[str, Thing] = {
    thing.name: thing
    for thing in (
        CAT,
        DOG,
        RABBIT,
        FISH,
        BIRD,
        HORSE,
        DUCK,
        SHEEP,
        TURTLE,
        FROG,
        PIG,
        CAR,
        BOAT,
        BUS,
        HOUSE,
        TREE,
        FLOWER,
        MUSHROOM,
        CACTUS,
        BALL,
        APPLE,
        CUP,
        CHAIR,
        HAT,
        BOOK,
        LAMP,
        UMBRELLA,
        BALLOON,
        SUN,
        MOON,
        CLOUD,
        STAR,
    )
}

__all__ = ["THINGS"]
