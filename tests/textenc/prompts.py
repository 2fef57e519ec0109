"""Prompts of every script that Unicode names, of emoji, of odd white space, of every length."""

import random
import unicodedata
from collections import defaultdict
from functools import cache
from itertools import cycle

ENGLISH = (
    *("a", "photo", "of", "the", "cat's", "2", "dogs,", "(masterpiece:1.2)", "BY", "night..."),
    *("it's", "4k", "wow!!!", "&", "more"),
)
EMOJI = ("🐱", "👩‍👩‍👧", "🇫🇷", "✨glow✨", "👍🏽", "3️⃣", "❤️", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "☃", "(╯°□°)╯︵┻━┻")
SPACES = (" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\u2028", ", ")
MARKS = [chr(code) for code in range(0x300, 0x370)]


@cache
def scripts() -> dict[str, list[str]]:
    """Return the letters, marks and digits of each script, by the first word of their names."""
    found: dict[str, list[str]] = defaultdict(list)
    for code in range(0x21, 0x323B0):
        if unicodedata.category(chr(code))[0] in "LMN":
            found[unicodedata.name(chr(code), "?").split()[0].split("-")[0]].append(chr(code))
    return {name: found[name] for name in sorted(found) if len(found[name]) >= 8}


def thousand_prompts() -> list[str]:
    """Return a thousand prompts, the same ones each time, from one word to hundreds of tokens."""
    rng = random.Random(0)
    prompts: dict[str, None] = {}
    for letters in cycle(scripts().values()):
        prompts[_prompt(rng, letters)] = None
        if len(prompts) == 1000:
            return list(prompts)
    raise AssertionError("there are no scripts")


def _prompt(rng: random.Random, letters: list[str]) -> str:
    prompt = ""
    for _ in range(rng.choice((1, 2, 4, 8, 16, 40))):
        kind = rng.random()
        if kind < 0.5:
            prompt += "".join(rng.choices(letters, k=rng.randint(1, 9)))
        elif kind < 0.8:
            prompt += rng.choice(ENGLISH)
        elif kind < 0.9:
            prompt += rng.choice(EMOJI)
        else:
            prompt += "".join(rng.choice("aeoNZ") + rng.choice(MARKS) for _ in range(3))
        prompt += rng.choice(SPACES)
    return prompt
