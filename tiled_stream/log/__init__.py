"""The log of each node. `port.py` says what an engine promises, `memory.py` is the reference engine: read those two first."""
