"""Command-line parsers made from settings models."""

from __future__ import annotations

import argparse
import sys
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic.fields import FieldInfo

from pvapy_stream.base_settings import choices_of, description_of, is_plain
from pvapy_stream.cli.parser import Parser
from pvapy_stream.cli.paths import check_paths
from pvapy_stream.errors import SettingsError
from pvapy_stream.settings import Opt, Settings, option_of
from pvapy_stream.settings.incumbent import OPTIONS

S = TypeVar("S", bound=Settings)


def add_settings(parser: argparse.ArgumentParser, model: type[Settings]) -> None:
    """Add the options of a model to a parser."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    # Required options first, also in the usage.
    fields = sorted(model.model_fields.items(), key=lambda item: not item[1].is_required())
    for name, field in fields:
        option = option_of(model, name)
        if option is None:
            continue
        group = groups.get(option.group)
        if group is None:
            group = groups[option.group] = parser.add_argument_group(option.group)
        argument = _argument(field, option)
        if option.flags[0].startswith("-"):
            action = group.add_argument(*option.flags, dest=name, **argument)
        else:
            action = _add_positional(group, name, argument, option)
        if not is_plain(field):
            _complete_later(parser, action, field, option)


def _add_positional(
    group: argparse._ArgumentGroup, name: str, argument: dict[str, Any], option: Opt
) -> argparse.Action:
    """A positional setting; it may be omitted if it has a default."""
    required = argument.pop("required")
    argument["metavar"] = option.flags[0]
    return group.add_argument(name, nargs=None if required else "?", **argument)


def _complete_later(
    parser: argparse.ArgumentParser, action: argparse.Action, field: FieldInfo, option: Opt
) -> None:
    """Ask what is installed when the help is shown; it takes longer than all else here."""

    def complete() -> None:
        action.help = _help(field, option)
        if (choices := choices_of(field)) and action.option_strings and not option.metavar:
            action.metavar = "|".join(choices)

    if isinstance(parser, Parser):
        parser.complete_later(complete)
    else:
        complete()


def parse(model: type[S], parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> S:
    """Settings from a command line; a wrong value ends the program with a message and code 2."""
    words = sys.argv[1:] if argv is None else argv
    given = vars(parser.parse_args(written_out(model, words)))
    try:
        return settings_of(model, given)
    except SettingsError as error:
        parser.error(str(error))


def written_out(model: type[Settings], argv: Sequence[str]) -> list[str]:
    """A command line in which abbreviated long options of PvaPy's program are completed.

    A prefix that is unique among its options is accepted, whatever further options this package
    has.
    """
    known = OPTIONS.get(model.__name__)
    if known is None:
        return list(argv)
    ours = [
        flag for name in model.model_fields for flag in getattr(option_of(model, name), "flags", ())
    ]
    words: list[str] = []
    for number, word in enumerate(argv):
        if word == "--":
            return [*words, *argv[number:]]
        start, equals, value = word.partition("=")
        if start.startswith("--") and start not in ours and start not in known:
            for flags in (known, ours):
                found = [flag for flag in flags if flag.startswith(start)]
                if found:
                    break
            if len(found) == 1:
                word = f"{found[0]}{equals}{value}"
        words.append(word)
    return words


def settings_of(model: type[S], given: dict[str, Any]) -> S:
    """Settings from what a parser found.

    Raises:
        SettingsError: a value is wrong, or a folder is missing.
    """
    settings = model.of(
        **{name: value for name, value in given.items() if name in model.model_fields}
    )
    check_paths(settings)
    return settings


def _argument(field: FieldInfo, option: Opt) -> dict[str, Any]:
    # Absent options stay absent: only the model has the defaults.
    argument: dict[str, Any] = {"default": argparse.SUPPRESS}
    if is_plain(field):
        argument["help"] = _help(field, option)
    kind = _plain(field.annotation)
    if option.many:
        argument |= {"nargs": "+", "action": "extend"}
    if kind is bool:
        return {**argument, "action": "store_true"}
    if get_origin(kind) is Literal:
        argument["metavar"] = "|".join(str(choice) for choice in get_args(kind))
        argument["type"] = type(get_args(kind)[0])
    elif kind in (int, float):
        argument["type"] = kind
    if option.metavar:
        argument["metavar"] = option.metavar
    return {**argument, "required": field.is_required()}


def _help(field: FieldInfo, option: Opt) -> str:
    default = field.get_default(call_default_factory=True)
    # An absent value and a switch that is off are not shown as defaults; the number 0 is.
    empty = not default and (default is False or default != 0)
    notes = [] if field.is_required() or empty else [f"default {_shown(default)}"]
    if option.unit:
        notes = [f"{notes[0]} {option.unit}" if notes else option.unit]
    if field.is_required():
        notes.append("required")
    return description_of(field) + (f" [{', '.join(notes)}]" if notes else "")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _plain(annotation: Any) -> Any:
    """The annotation without Annotated and None."""
    if get_origin(annotation) is typing.Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return _plain(kinds[0]) if len(kinds) == 1 else annotation
    return annotation
