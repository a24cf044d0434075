"""Everything that can go wrong, as one tree.

    TiledStreamError
    ├─ Refused                the caller is at fault; nothing was appended (I10)
    │  ├─ Malformed           a body, parameter or structure that cannot be understood
    │  ├─ Unsatisfiable       well-formed, but parameters contradict each other or ask for what no answer exists
    │  ├─ NotFound            no such node, revision or asset
    │  │  └─ Gone             there was one; it was deleted and will not come back
    │  ├─ Conflict            the key is taken, the region does not fit, the head moved on
    │  ├─ NotSupported        the node exists but cannot do that
    │  ├─ UnsupportedType     a media type that no codec or store handles
    │  ├─ NotAcceptable       no answer in any of the formats that were asked for
    │  ├─ TooLarge            the answer would exceed the configured size
    │  ├─ Unauthenticated     no credentials, or wrong ones
    │  └─ Forbidden           good credentials that do not allow this
    ├─ Unavailable            a dependency or the persister is behind; try again later
    │  ├─ InDoubt             a write was begun and not confirmed
    │  ├─ BodyMissing         the log has the record, but not its body
    │  ├─ LeaseLost           another persister took the node over
    │  ├─ StorageMissing      a storage is not mounted, or belongs to another deployment
    │  └─ DataLost            acknowledged data of this node are missing in catalog or storage
    └─ LogError               what a reader of a log is told instead of a silent gap (I3)
       ├─ Truncated           records after the cursor have left the log
       └─ EpochChanged        the log began another life

Data stand in attributes, the sentence in ``str()``. ``http/faults.py`` maps each class to a status and a
close code in one table; nothing else knows about HTTP.
"""

from __future__ import annotations

__all__ = [
    "BodyMissing",
    "Conflict",
    "DataLost",
    "EpochChanged",
    "Forbidden",
    "Gone",
    "InDoubt",
    "LeaseLost",
    "LogError",
    "Malformed",
    "NotAcceptable",
    "NotFound",
    "NotSupported",
    "Refused",
    "StorageMissing",
    "TiledStreamError",
    "TooLarge",
    "TooOften",
    "Truncated",
    "Unauthenticated",
    "Unavailable",
    "Unsatisfiable",
    "UnsupportedType",
]


class TiledStreamError(Exception):
    """Root of the tree: `message` says what happened and, where one exists, how to mend it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Refused(TiledStreamError):
    """The request cannot be done as asked; repeating it unchanged will not help."""


class Malformed(Refused):
    """A body, parameter or structure that cannot be understood."""


class Unsatisfiable(Refused):
    """Well-formed, but it contradicts itself, asks for what this server never answers, or breaks a rule of its operator."""


class NotFound(Refused):
    """No such node, revision or asset."""


class Gone(NotFound):
    """The node was deleted; its id is never used again."""


class Conflict(Refused):
    """The request collides with what exists. `head` is the head of the log if a race was lost, else None."""

    def __init__(self, message: str, *, head: int | None = None) -> None:
        super().__init__(message)
        self.head = head


class NotSupported(Refused):
    """The node exists but its family, management or storage does not allow this operation."""


class UnsupportedType(Refused):
    """A media type that nothing here can read or write."""


class NotAcceptable(Refused):
    """None of the formats asked for can be produced for this node."""


class TooLarge(Refused):
    """The answer would exceed the configured response size."""


class Unauthenticated(Refused):
    """No credentials, or credentials that are not valid. `scopes` are those the route needs."""

    def __init__(self, message: str, *, scopes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.scopes = scopes


class TooOften(Refused):
    """The same was tried too often; after `retry_after` seconds it may be tried again."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Forbidden(Refused):
    """Valid credentials that do not allow this."""


class Unavailable(TiledStreamError):
    """Cannot be done now. `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InDoubt(Unavailable):
    """Was begun and not confirmed: it may be done, or half-way. Any other `Unavailable` of a write did nothing."""


class BodyMissing(Unavailable):
    """The log has the record, but not the body that belongs to it; only its node is held up."""


class LeaseLost(Unavailable):
    """The lease ran out and another persister holds the node now."""


class StorageMissing(Unavailable):
    """The storage is not the one that the catalog knows: not mounted, emptied, or of another deployment. Names the place."""


class DataLost(Unavailable):
    """Acknowledged data of a node are missing in catalog or storage. Names the node, the records and the command that shows
    more."""


class LogError(TiledStreamError):
    """The log cannot continue from the reader's cursor; the reader must be told why (I3)."""


class Truncated(LogError):
    """Records after the cursor are gone from the log. `first` is the first sequence still there (head + 1 if none)."""

    def __init__(self, first: int) -> None:
        super().__init__(f"The log begins at sequence {first}; earlier records have left it.")
        self.first = first


class EpochChanged(LogError):
    """The log was emptied or replaced. `now` is its present epoch."""

    def __init__(self, now: str) -> None:
        super().__init__(f"The log began another life (epoch {now}).")
        self.now = now
