"""The program: its commands, and what becomes of an error."""

import gc
import sys
from signal import SIGINT

import typer
from typer.exceptions import Abort, TyperException

from sdcli import commands
from sdcli.errors import is_user_error, one_line
from sdcli.interrupts import at_once


def program(asked: str | None = None) -> typer.Typer:
    """Return the program with the command that is asked for, or with all where that is none."""
    app = typer.Typer(
        name="sdcli",
        help="Text to image with latent diffusion, and the training of every part of it.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # helps speak of [word] and [default: ...], which markup swallows
    )
    commands.register(app, asked)
    return app


def main() -> None:
    """Run the command line and exit: 0 done, 2 bad input in one line, 130 or 143 by a signal."""
    # Importing torch makes a million objects that stay, and Python's collector would go through
    # them every 700: a tenth of the time to the first step.
    gc.set_threshold(100_000)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    with at_once() as ending:
        code = _run(arguments)
        if ending.signal is not None:
            _complain("interrupted" if ending.signal == SIGINT else "terminated")
            code = 128 + ending.signal
    return code


def _run(arguments: list[str]) -> int:
    app = program(arguments[0] if arguments else None)
    try:
        result = app(args=arguments, prog_name="sdcli", standalone_mode=False)
    except TyperException as error:
        told = error.format_message()
        if told.startswith("Usage:"):  # the help of what was given no arguments
            print(told, file=sys.stderr)
        else:
            _complain(one_line(told))
        return 2
    except (KeyboardInterrupt, Abort):
        return 130
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except ValueError as error:
        if not is_user_error(error):
            raise
        _complain(one_line(str(error)))
        return 2
    return result if isinstance(result, int) else 0


def _complain(message: str) -> None:
    print(f"sdcli: {message}", file=sys.stderr)
