"""The argument parser of all commands: its help, and its messages about wrong options."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from rich_argparse import RawDescriptionRichHelpFormatter

from pvapy_stream import __version__
from pvapy_stream.early import collect_garbage

_WRONG_CHOICE = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)")
_NUMBER = re.compile(r"-[\d.]")


class HelpFormatter(RawDescriptionRichHelpFormatter):
    """Help as plain text: square brackets are not markup."""

    help_markup = False
    text_markup = False


class Parser(argparse.ArgumentParser):
    """Shows required options first; an error is one line, with the nearest option if there is one.

    Args:
        prog: name of the program.
        description: what it does.
        epilog: examples and exit codes.
        version: add an option that prints the version.
    """

    def __init__(
        self,
        prog: str | None = None,
        description: str | None = None,
        epilog: str | None = None,
        *,
        version: bool = False,
        **others: Any,
    ) -> None:
        others = {"formatter_class": HelpFormatter, "allow_abbrev": False, **others}
        super().__init__(prog=prog, description=description, epilog=epilog, **others)
        self._words: Sequence[str] = ()
        self._later: list[Callable[[], None]] = []
        if version:
            self.add_argument(
                "-v", "--version", action="version", version=f"%(prog)s {__version__}"
            )

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        self._words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(self._words, namespace)

    def complete_later(self, complete: Callable[[], None]) -> None:
        """Have something of the help completed before it is shown."""
        self._later.append(complete)

    def complete(self) -> None:
        """Complete the help of all options."""
        while self._later:
            self._later.pop()()

    def format_help(self) -> str:
        self.complete()
        for group in self._action_groups:
            group._group_actions.sort(key=_place)  # noqa: SLF001 - argparse has no order of its own
        # Groups with required options first, and the general options last.
        self._action_groups.sort(
            key=lambda group: (
                not any(action.required for action in group._group_actions),  # noqa: SLF001
                group is self._optionals,
            )
        )
        return super().format_help()

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        # Otherwise the interpreter looks at its end through all that was imported.
        collect_garbage()
        super().exit(status, message)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {self._with_hint(message)}\n")

    def _with_hint(self, message: str) -> str:
        if choice := _WRONG_CHOICE.search(message):
            choices = re.findall(r"[^', ]+", choice[2])
            return message + did_you_mean(choice[1], choices)
        flags = set(flags_of(self))
        unknown = next(filter(None, (_unknown(word, flags) for word in self._options())), "")
        if not unknown:
            return message
        hint = did_you_mean(unknown, flags) or f"; {self.prog} -h lists the options"
        if message.startswith("the following arguments are required"):
            return f"unrecognized arguments: {unknown}{hint}"
        return message + (hint if message.startswith("unrecognized") else "")

    def _options(self) -> Iterator[str]:
        for word in self._words:
            if word == "--":
                return
            if word.startswith("-"):
                yield word.partition("=")[0]


def _place(action: argparse.Action) -> tuple[bool, bool]:
    return action.dest in ("help", "version"), not action.required


def _unknown(word: str, flags: set[str]) -> str:
    """The word, if it is an option that does not exist; short options may include their value."""
    if word in flags or word == "-" or _NUMBER.match(word) or " " in word:
        return ""
    short = (flag for flag in flags if not flag.startswith("--"))
    known = not word.startswith("--") and word.startswith(tuple(short))
    return "" if known else word


def flags_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """All options of a parser, and of the parsers of its actions."""
    for one in parsers_of(parser):
        yield from one._option_string_actions  # noqa: SLF001 - there is no other way to ask


def parsers_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser, and those of its actions."""
    yield parser
    for action in parser._actions:  # noqa: SLF001 - there is no other way to ask
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for one in action.choices.values():
                yield from parsers_of(one)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with the nearest known word; "" if none is near."""
    import difflib  # here, as few command lines are wrong

    nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
