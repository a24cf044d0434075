"""For whoever writes an engine of a port, or tests what stands on one: contract suites, a state machine, faults, factories.

A contract suite is a pytest class: subclass it, give it the fixtures that its docstring asks for, and run it. The suites need
pytest with pytest-asyncio (`asyncio_mode = "auto"`), the state machine needs hypothesis; neither comes with the package itself
(`pip install "tiled-stream[dev]"`). Nothing here is imported by the server.
"""
