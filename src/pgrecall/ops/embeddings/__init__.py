"""Embeddings as operators see them: what is to be made, making it, and changing the model."""

from pgrecall.ops.embeddings.comparing import Comparison
from pgrecall.ops.embeddings.models import Storage
from pgrecall.ops.embeddings.status import Status, retry, status
from pgrecall.ops.embeddings.switch import Switch, SwitchReport
from pgrecall.ops.embeddings.worker import Backfill, Report, backfill

__all__ = [
    "Backfill",
    "Comparison",
    "Report",
    "Status",
    "Storage",
    "Switch",
    "SwitchReport",
    "backfill",
    "retry",
    "status",
]
