"""Names and captions out of files, fit for one line of a terminal."""


def printable(text: object) -> str:
    """Return text with all that does not print escaped: breaks, control codes, stray bytes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )
