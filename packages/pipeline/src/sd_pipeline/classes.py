"""The classes that a model was taught, by their names and numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from sd_pipeline.errors import PipelineError
from sd_pipeline.printable import printable
from sd_unet import BackboneConfig

_SHOWN = 60
_MAX_NAME = 1000  # ImageNet's longest is 120


@dataclass(frozen=True, kw_only=True, slots=True)
class Classes:
    """The names of a model's classes, in the order of their numbers from 0.

    The number after the last, `null`, stands for no class: what guidance is against, and what is
    learnt where a label is dropped. A name may be several with commas between, any of which will
    do, as in the labels of ImageNet.
    """

    names: tuple[str, ...]

    @property
    def null(self) -> int:
        """The number of no class."""
        return len(self.names)

    def find(self, text: str) -> int | None:
        """Return the number of the class that a text names or numbers, None where it is none.

        Capitals do not matter. An empty text is no class.
        """
        wanted = _plain(text)
        if not wanted:
            return self.null
        for alike in (lambda name: [name], lambda name: name.split(",")):
            for number, name in enumerate(self.names):
                if wanted in map(_plain, alike(name)):
                    return number
        numbered = wanted.isascii() and wanted.isdigit() and len(wanted) < 10
        return int(wanted) if numbered and int(wanted) < len(self.names) else None

    def number(self, text: str) -> int:
        """Return the number of a class as `find` does.

        Raises `PipelineError` with the nearest name, and the names that there are.
        """
        found = self.find(text)
        if found is not None:
            return found
        raise PipelineError(f"class {printable(text)!r} is not known{self.suggestion(text)}")

    def suggestion(self, text: str) -> str:
        """Return what to say of a text that is no class: the nearest, and all that there are."""
        by_plain = {_plain(name): name for name in self.names}
        near = [by_plain[name] for name in get_close_matches(_plain(text), by_plain, n=1)]
        told = f"; did you mean {near[0]!r}?" if near else ";"
        shown = ", ".join(printable(name) for name in self.names[:_SHOWN])
        more = ", ..." * (len(self.names) > _SHOWN)
        return f"{told} choose of {len(self.names)}, by name or by number from 0: {shown}{more}"

    def id2label(self) -> dict[str, str]:
        """Return the names by number, as diffusers' DiTPipeline keeps them."""
        return {str(number): name for number, name in enumerate(self.names)}


def classes_of(config: BackboneConfig, id2label: object, *, what: str) -> Classes | None:
    """Return the classes of a network by the names that a model states, None where it has none.

    Without names they are called by their numbers. `what` names the file in errors. Raises
    `PipelineError` for names that are none, or not as many as the network's classes, and for a
    network that is told something else in their place.
    """
    if not config.takes_classes:
        return None
    if config.num_class_embeds is None:
        raise PipelineError(
            f"{what}: the network wants numbers or vectors that no class has (class_embed_type); "
            "use one with num_class_embeds"
        )
    count = config.num_class_embeds - 1
    if id2label is None:
        return Classes(names=tuple(str(number) for number in range(count)))
    names = _names(id2label)
    if names is None:
        raise PipelineError(f'{what}: id2label must name classes by number: {{"0": "a name", ...}}')
    if len(names) != count:
        raise PipelineError(
            f"{what}: id2label names {len(names)} classes, but the network knows {count} and the "
            "one for none; name all of them"
        )
    return Classes(names=names)


def class_asked(
    classes: Classes | None, prompt: str, class_name: str | None, *, has_text: bool
) -> str | None:
    """Return the name of the one class that is asked for, None where it is none or several.

    A model that hears no text is asked by the prompt; `class_name` may then only say the same.
    Raises `PipelineError` for a class that is not known, or asked of a model that knows none.
    """
    if classes is None:
        if class_name is None:
            return None
        raise PipelineError(
            f"this model is told no classes, and {printable(class_name)!r} is asked for; leave "
            "the class out"
        )
    number = None if class_name is None else classes.number(class_name)
    if not has_text:
        prompted = classes.find(prompt)
        if number is not None and number != prompted:
            raise PipelineError(
                f"the prompt {printable(prompt)!r} and the class {printable(class_name)!r} are "
                "two, and this model is told classes alone; give one of them"
            )
        number = prompted
    return None if number is None or number == classes.null else classes.names[number]


def _names(id2label: object) -> tuple[str, ...] | None:
    """Return the names in the order of their numbers, None for what holds none."""
    if not isinstance(id2label, Mapping):
        return None
    names = [id2label.get(str(number)) for number in range(len(id2label))]
    good = [
        name
        for name in names
        if isinstance(name, str) and name.isprintable() and 0 < len(name.strip()) <= _MAX_NAME
    ]
    return tuple(good) if len(good) == len(names) else None


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()
