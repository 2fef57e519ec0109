"""Paint a scene."""

from random import Random

from PIL import Image

from sd_scenes.backgrounds import NIGHT, lit, paint_background, veil
from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.layout import EXTENT
from sd_scenes.places import PLACES, Setting
from sd_scenes.relations import HIGH
from sd_scenes.scene import Item, Scene
from sd_scenes.subjects import SUBJECTS
from sd_scenes.things import THINGS


def paint_scene(scene: Scene, size: int = 128) -> Image.Image:
    """Return ``scene`` as an RGB picture of ``size`` x ``size`` pixels."""
    canvas = Canvas(EXTENT)
    rng = Random(scene.look)
    empty = any(group.thing in HIGH for group in scene.groups)
    paint_background(canvas, scene.background, scene.horizon, rng, empty=empty)
    if scene.place is not None:
        colour = Colour.named(scene.place_colour) if scene.place_colour else None
        setting = Setting(
            horizon=scene.horizon, rear=scene.rear, background=scene.background, colour=colour
        )
        PLACES[scene.place].paint(canvas, setting, rng)
    for item in scene.items:
        if not (item.hovers or item.floats or item.rim is not None):
            _shadow(canvas, item, 0.3 if scene.background == NIGHT else 0.4)
    for item in scene.items:
        paint_item(canvas, item)
        if item.floats:
            _ripples(canvas, item, scene.background)
    veil(canvas, scene.background)
    return canvas.render(size)


def paint_item(canvas: Canvas, item: Item) -> None:
    """Paint one thing where it belongs."""
    scale = item.size / 100
    with canvas.group(move=(item.x, item.y), scale=(-scale if item.flip else scale, scale)):
        if item.rim is None:
            _draw(canvas, item)
        else:
            with canvas.clip(f"M -90 {item.rim} H 90 V 40 H -90 Z"):
                _draw(canvas, item)


def _draw(canvas: Canvas, item: Item) -> None:
    if item.subject is not None:
        SUBJECTS[item.subject].draw(canvas, item.pose)
        return
    thing, colour, rng = THINGS[item.thing], Colour.named(item.colour), Random(item.pose)
    if item.marks is not None and thing.draw_marked is not None:
        thing.draw_marked(canvas, colour, rng, item.marks)
    else:
        thing.draw(canvas, colour, rng)


def _shadow(canvas: Canvas, item: Item, strength: float) -> None:
    # The light comes from the upper left, so the shadow leans to the right.
    half = THINGS[item.thing].width * item.size / 200
    centre = (item.x + 0.1 * half, item.y - 0.5)
    canvas.soft_shadow(centre, 1.08 * half, max(2.6, 0.2 * half), strength)


def _ripples(canvas: Canvas, item: Item, background: str) -> None:
    half = 0.56 * THINGS[item.thing].width * item.size / 100
    x, y = item.x, item.y - 0.05 * item.size
    water = lit("#4f9ace", background) if background != NIGHT else "#3a5596"
    foam = lit("#d8f1fa", background)
    bow = f"M {x - half} {y} q {half / 2} 2.4 {half} 0 t {half} 0 "
    canvas.path(
        bow
        + f"Q {x + half * 0.8} {y + 8} {x} {y + 8.5} Q {x - half * 0.8} {y + 8} {x - half} {y} Z",
        water,
    )
    canvas.stroke(bow, foam, 1.1, opacity=0.9)
    canvas.stroke(
        f"M {x - half * 0.6} {y + 5} q {half * 0.3} 1.6 {half * 0.6} 0", foam, 0.8, opacity=0.7
    )
