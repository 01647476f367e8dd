"""Commands: parsers generated from settings, and one small file for each command."""
