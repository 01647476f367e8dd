"""Which id met which fate: id sets, the sequence of ids, ledgers, who writes them, the audit."""
