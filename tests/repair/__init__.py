"""Missed objects come again from their source."""
