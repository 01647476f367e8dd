"""All that knows PVAccess structures."""
