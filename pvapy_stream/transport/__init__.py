"""Transports: receivers and publishers, one file for each mode."""
