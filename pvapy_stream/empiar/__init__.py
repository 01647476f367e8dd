"""Import of EMPIAR entries: a plugin of workflows, found by its entry point like any other."""
