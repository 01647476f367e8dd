"""Outputs on our own sockets."""
