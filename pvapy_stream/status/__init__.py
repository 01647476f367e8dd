"""The status of a program: one typed model, and an adapter for each output."""
