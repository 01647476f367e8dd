"""Streams in programs of users: iterators over frames, and publishers, with asyncio or without."""
