"""Tells schemathesis how bodies of the import are written: a document a line."""

from __future__ import annotations

from typing import Any

import orjson
import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(_: Any, value: Any) -> bytes:
    """Return a body."""
    documents = value if isinstance(value, list) else [value]
    return b"\n".join(
        one.encode(errors="surrogatepass") if isinstance(one, str) else orjson.dumps(one)
        for one in documents
    )
