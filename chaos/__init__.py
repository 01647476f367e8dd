"""The fault campaign: random chains, random faults, and truth that is read from the pixels."""
