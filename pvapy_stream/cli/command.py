"""Commands with options of their own, from a command line to an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from msgspec import Struct

from pvapy_stream.cli.exit_codes import exit_code
from pvapy_stream.cli.parser import Parser


def say(line: str) -> None:
    """Write a line to standard output, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _no_arguments(_: argparse.ArgumentParser) -> None:
    pass


class CliCommand(Struct, frozen=True):
    """A command with options of its own.

    Args:
        prog: its name in help and messages.
        description: what it does.
        run: does it; returns the exit code.
        epilog: examples and exit codes.
        add_arguments: adds its options to a parser.
        intermixed: positional arguments may follow options.
    """

    prog: str
    description: str
    run: Callable[[argparse.Namespace], int]
    epilog: str = ""
    add_arguments: Callable[[argparse.ArgumentParser], None] = _no_arguments
    intermixed: bool = False

    def parser(self) -> Parser:
        """A new parser with all options."""
        made = Parser(self.prog, self.description, self.epilog, version=True)
        self.add_arguments(made)
        return made

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the command; returns its exit code. Wrong options end the program with code 2."""
        made = self.parser()
        options = made.parse_intermixed_args(argv) if self.intermixed else made.parse_args(argv)
        return exit_code(lambda: self.run(options))
