"""The fate of each id: id sets, the sequence of ids, ledgers and their files, the audit."""
