"""URIs as they may be shown: in logs, errors and answers no password appears."""

from __future__ import annotations

import re

__all__ = ["redacted"]

# Up to the last "@": people forget to escape what their passwords hold. Rather too much is hidden than too little.
_USERINFO = re.compile(r"(?<=://)(?P<user>[^/?#:@]*):.*@")
_PARAMETER = re.compile(r"(?<=[?&])(?P<name>password|passwd|sslpassword|token|key)=[^&#]*", re.IGNORECASE)


def redacted(uri: str) -> str:
    """`uri` with every password replaced by ``***``; the user's name stays."""
    shown = _USERINFO.sub(lambda m: f"{m['user']}:***@", uri)
    return _PARAMETER.sub(lambda m: f"{m['name']}=***", shown)
