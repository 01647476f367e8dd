"""The simulator: a source of frames and a server that paces and publishes them."""
