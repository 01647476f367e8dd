"""Channels of other servers under names of our own."""
