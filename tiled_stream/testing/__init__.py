"""For whoever writes an engine of a port, or tests what stands on one: contract suites, a state machine, faults, factories.

A contract suite is a pytest class: subclass it, give it the fixtures that its docstring asks for, and run it. The suites need
pytest with pytest-asyncio (`asyncio_mode = "auto"`), the state machine needs hypothesis; neither comes with the package itself
(`pip install "tiled-stream[dev]"`). Nothing here is imported by the server.
"""

import pytest

# So that a failing assertion of a suite shows its values, as one in a test file does.
pytest.register_assert_rewrite(
    *(f"{__name__}.{port}_contract" for port in ("log", "durable_log", "backlog", "retention", "catalog", "array", "table")),
    f"{__name__}.log_machine",
)
