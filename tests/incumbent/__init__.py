"""The examples that PvaPy publishes, with its programs and with ours."""
