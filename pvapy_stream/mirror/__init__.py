"""Mirror: republishes channels of other servers under its own names."""
