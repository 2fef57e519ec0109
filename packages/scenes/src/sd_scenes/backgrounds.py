"""What stands behind a scene: skies of four moods, and the wall of a room."""

from collections.abc import Callable
from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour, mix
from sd_scenes.things.cloud import CLOUD
from sd_scenes.things.moon import MOON

DAY, NIGHT, SUNSET, CLOUDY, INDOORS = "day", "night", "sunset", "cloudy", "indoors"
SKIES = (DAY, NIGHT, SUNSET, CLOUDY)
WALLS = ("#f3e3c3", "#cfe3ee", "#f1d3cf", "#d5e6cd", "#e3d9ef", "#f6ead9")

# The colour of the light, and how much of it falls on the ground and on the things.
_LIGHT = {
    DAY: ("#ffffff", 0.0, 0.0),
    NIGHT: ("#121a50", 0.38, 0.12),
    SUNSET: ("#c2502f", 0.2, 0.06),
    CLOUDY: ("#717c8a", 0.22, 0.05),
    INDOORS: ("#ffffff", 0.0, 0.0),
}


def lit(colour: str, background: str) -> str:
    """Return ``colour`` as the ground shows it in the light of ``background``."""
    light, amount, _ = _LIGHT[background]
    return mix(colour, light, amount)


def veil(canvas: Canvas, background: str) -> None:
    """Lay the light of ``background`` thinly over the whole picture."""
    light, _, amount = _LIGHT[background]
    if amount:
        canvas.rect((0, 0), canvas.extent, canvas.extent, light, opacity=amount)


def paint_background(
    canvas: Canvas, name: str, horizon: float, rng: Random, *, empty: bool = False
) -> None:
    """Fill the canvas down to ``horizon``; ``empty`` leaves out whatever could be counted."""
    _PAINTERS[name](canvas, horizon, rng, empty)


def _day(canvas: Canvas, horizon: float, rng: Random, empty: bool) -> None:
    top = rng.choice(("#3f93e6", "#4aa3ee", "#5ab0f0"))
    _sky(canvas, horizon, [(0, top), (1, "#cdeafb")])
    if not empty and rng.random() < 0.5:
        _clouds(canvas, horizon, rng, rng.choice((1, 1, 2)))
    if rng.random() < 0.35:
        _hills(canvas, horizon, rng, "#7fb98c")


def _night(canvas: Canvas, horizon: float, rng: Random, empty: bool) -> None:
    _sky(canvas, horizon, [(0, "#0b1036"), (1, "#35427f")])
    for _ in range(12 if empty else 22):
        spot = (rng.uniform(2, 126), rng.uniform(2, max(horizon - 4, 4)))
        canvas.circle(spot, rng.uniform(0.5, 1.1), "#fdf6d8", opacity=rng.uniform(0.6, 1))
    if not empty and rng.random() < 0.75:
        place = (rng.choice((rng.uniform(14, 26), rng.uniform(102, 114))), rng.uniform(24, 30))
        canvas.soft_glow((place[0], place[1] - 9), 20, "#f8efb8", 0.45)
        with canvas.group(move=place, scale=0.18):
            MOON.draw(canvas, Colour("yellow", "#f6e9a8"), rng)
    if rng.random() < 0.3:
        _hills(canvas, horizon, rng, "#2b3766")


def _sunset(canvas: Canvas, horizon: float, rng: Random, empty: bool) -> None:
    _sky(canvas, horizon, [(0, "#6a4a9c"), (0.4, "#e0678a"), (0.75, "#f99a55"), (1, "#fdd67c")])
    x = rng.uniform(20, 108)
    if not empty:
        canvas.soft_glow((x, horizon), 42, "#fff0a8", 0.8)
        canvas.circle((x, horizon - 1), 12, "#fff1b0")
    for _ in range(2):
        bar = (rng.uniform(10, 118), horizon * rng.uniform(0.25, 0.7))
        canvas.ellipse(bar, rng.uniform(14, 24), 2, "#f7b29b", opacity=0.6)


def _cloudy(canvas: Canvas, horizon: float, rng: Random, _empty: bool) -> None:
    _sky(canvas, horizon, [(0, "#a9b4bf"), (0.75, "#cdd5dc"), (1, "#b6c1cb")])
    for y, shade in ((25.0, "#b4bdc7"), (13.0, "#98a3af"), (1.0, "#7d8996")):
        x = rng.uniform(-16, 0)
        while x < 140:
            radius = rng.uniform(12, 19)
            drop = rng.uniform(-3, 3)
            canvas.ellipse((x, y + drop + 1.5), radius, radius * 0.62, mix(shade, "#4a5462", 0.3))
            canvas.ellipse((x, y + drop), radius, radius * 0.6, shade)
            x += radius * 1.3
        canvas.rect((0, -20), 128, y + 20, shade)


def _indoors(canvas: Canvas, horizon: float, rng: Random, _empty: bool) -> None:
    wall = rng.choice(WALLS)
    _sky(canvas, horizon, [(0, wall), (1, mix(wall, "#6b5a52", 0.14))])
    if rng.random() < 0.45:
        stripe = mix(wall, "#ffffff", 0.35)
        for x in range(rng.randrange(4, 12), 128, 16):
            canvas.rect((x, 0), 6, horizon, stripe, opacity=0.6)
    canvas.rect((0, horizon - 5), 128, 5, mix(wall, "#ffffff", 0.6))
    canvas.rect((0, horizon - 1.2), 128, 1.2, mix(wall, "#4a3528", 0.45))


def _sky(canvas: Canvas, horizon: float, stops: list[tuple[float, str]]) -> None:
    canvas.rect((0, 0), 128, 128, canvas.linear((0, 0), (0, max(horizon, 30)), stops))


def _clouds(canvas: Canvas, horizon: float, rng: Random, count: int) -> None:
    for side in rng.sample((0.18, 0.5, 0.82), count):
        place = (128 * side + rng.uniform(-8, 8), rng.uniform(16, max(20, horizon * 0.42)))
        with canvas.group(move=place, scale=rng.uniform(0.2, 0.32), opacity=0.92):
            CLOUD.draw(canvas, Colour.named("white"), rng)


def _hills(canvas: Canvas, horizon: float, rng: Random, colour: str) -> None:
    if horizon > 110:
        return
    for shade in (mix(colour, "#bcd9ee" if colour != "#2b3766" else "#4a568f", 0.4), colour):
        x, rise = rng.uniform(10, 118), rng.uniform(9, 17)
        canvas.ellipse((x, horizon + 3), rng.uniform(40, 62), rise, shade)


_Painter = Callable[[Canvas, float, Random, bool], None]
_PAINTERS: dict[str, _Painter] = {
    DAY: _day,
    NIGHT: _night,
    SUNSET: _sunset,
    CLOUDY: _cloudy,
    INDOORS: _indoors,
}
