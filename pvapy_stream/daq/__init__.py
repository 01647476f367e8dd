"""Data acquisition: what comes is buffered, and what was asked for, past or to come, is written."""
