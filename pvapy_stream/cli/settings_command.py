"""Commands whose options are the fields of a settings model.

Apart from `cli.command`, as pydantic takes long to import and other commands do without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from pvapy_stream.cli.exit_codes import exit_code
from pvapy_stream.cli.options import add_settings, parse
from pvapy_stream.cli.parser import Parser
from pvapy_stream.logs import configure_logging
from pvapy_stream.settings import LoggingSettings, Settings

S = TypeVar("S", bound=Settings)


class SettingsCommand(Struct, Generic[S], frozen=True):
    """A command whose options are the fields of a settings model.

    Args:
        prog: its name in help and messages.
        description: what it does.
        model: the settings.
        run: does it; returns the exit code.
        epilog: examples and exit codes.
        logs: logging is set up before `run`; otherwise `run` does it.
    """

    prog: str
    description: str
    model: type[S]
    run: Callable[[S], int]
    epilog: str = ""
    logs: bool = True

    def parser(self) -> Parser:
        """A new parser with all options."""
        made = Parser(self.prog, self.description, self.epilog, version=True)
        add_settings(made, self.model)
        return made

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the command; returns its exit code. Wrong options end the program with code 2."""
        settings = parse(self.model, self.parser(), argv)

        def work() -> int:
            self.set_up(settings)
            return self.run(settings)

        return exit_code(work)

    def set_up(self, settings: S) -> None:
        """Set up logging, unless `run` does it.

        Raises:
            SettingsError: the log file cannot be written.
        """
        if self.logs and isinstance(settings, LoggingSettings):
            configure_logging(settings)
