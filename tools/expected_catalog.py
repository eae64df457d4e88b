"""Writes the catalog that `pgrecall verify` compares with, from a freshly migrated database.

    python tools/expected_catalog.py "host=... dbname=FRESHLY_MIGRATED" \
        > src/pgrecall/ops/verify/expected.json

Look at the difference before checking it in: every changed line is a changed promise.
"""

from __future__ import annotations

import json
import sys

from pgrecall.ops.verify import catalog
from pgrecall.ops.verify.session import open_session


def main(dsn: str) -> str:
    """Return the catalog as JSON, with the dimension of the embeddings as a placeholder."""
    with open_session(dsn) as session:
        found = catalog.read(session)
        dimensions = session.rows("embedding_dimensions")[0]["dimensions"]
    for definitions in found.values():
        for name, definition in definitions.items():
            definitions[name] = definition.replace(f"vector({dimensions})", "vector({dimensions})")
    return json.dumps(found, indent=2, sort_keys=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(main(sys.argv[1]))
