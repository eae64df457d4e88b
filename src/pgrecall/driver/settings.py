"""What PostgreSQL must be set to for a vector search to be fast and to find what there is."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

RECALL_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        # Go on scanning the index until a filter has let enough rows through.
        "hnsw.iterative_scan": "relaxed_order",
        # Candidates kept during a scan: recall of 0.99 for little more time than the default 40.
        "hnsw.ef_search": "100",
        # A plan for unknown values would be wrong for most projects.
        "plan_cache_mode": "force_custom_plan",
        # The planner counts neither the fetching of vectors stored out of line nor their
        # distances, so it takes a scan of the whole table for cheaper than the index.
        "enable_seqscan": "off",
        "random_page_cost": "1.1",
    }
)
"""``init`` attaches these to the roles, for searches written by hand; recalls need none."""
