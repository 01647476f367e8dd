"""Workflows: protocols of steps and of streaming stages, in one graph."""
