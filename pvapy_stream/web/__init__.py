"""The live page: one server for browsers, fed by the status channels of stages."""
