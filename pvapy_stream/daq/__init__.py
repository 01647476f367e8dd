"""Data acquisition: buffers a stream, and writes requested past or future ranges of it."""
