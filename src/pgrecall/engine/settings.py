"""The settings of the embedded server, as a file that PostgreSQL includes.

``ALTER SYSTEM`` wins over all of them, so an operator can tune; the addresses are given on the
command line, so nothing can make the server unreachable for us.
"""

from __future__ import annotations

from pgrecall.engine.binaries import Binaries
from pgrecall.engine.memory import MemoryPlan

INCLUDE = "\n# Generated anew at every start; tune with ALTER SYSTEM.\ninclude '../pgrecall.conf'\n"
"""Appended to ``postgresql.conf``; relative, so that the data directory can be moved."""


def render(plan: MemoryPlan, binaries: Binaries) -> str:
    """Return the text of ``pgrecall.conf``.

    Args:
        plan: Memory settings for this machine.
        binaries: What the server is started from; decides which libraries can be preloaded.
    """
    preload = "pg_stat_statements" if binaries.has_stat_statements else ""
    values = {
        "cluster_name": "'pgrecall'",
        # Never trade a decision that was reported as saved for speed.
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "shared_preload_libraries": f"'{preload}'",
        "password_encryption": "'scram-sha-256'",
        "shared_buffers": f"{plan.shared_buffers}MB",
        "effective_cache_size": f"{plan.effective_cache_size}MB",
        "maintenance_work_mem": f"{plan.maintenance_work_mem}MB",
        "autovacuum_work_mem": f"{plan.autovacuum_work_mem}MB",
        "work_mem": f"{plan.work_mem}MB",
        "max_parallel_maintenance_workers": str(plan.max_parallel_maintenance_workers),
        "max_connections": "100",
        # Solid state disks; the default of 4 turns vector recalls into sequential scans.
        "random_page_cost": "1.1",
        # Compiling a query takes longer than a recall.
        "jit": "off",
        "track_io_timing": "on",
        "timezone": "'UTC'",
        "log_timezone": "'UTC'",
        "log_line_prefix": "'%m [%p] %q%u@%d/%a '",
        "logging_collector": "off",
        "log_destination": "'stderr'",
    }
    lines = [f"{name} = {value}" for name, value in values.items()]
    return "\n".join(["# Generated at every start; change settings with ALTER SYSTEM.", *lines, ""])
