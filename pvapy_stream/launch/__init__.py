"""Starts processes, restarts those that die, ends them; and the entry of such a process."""
