"""Protocols that come with the package; importing them registers their names."""
