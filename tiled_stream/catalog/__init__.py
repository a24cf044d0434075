"""What exists: the tree, its metadata and how far each node is persisted.

`port.py` is the interface, `facts.py` and `filters.py` are what all SQL engines share, `sqlite*.py` the embedded engine.
"""
