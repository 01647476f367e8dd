"""Commands: parsers made from settings, and one thin file a command."""
