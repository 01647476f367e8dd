"""Buffering what comes, and giving out what is asked for."""
