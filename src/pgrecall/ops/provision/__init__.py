"""Provisioning: from an administrator's connection to a complete agent memory, repeatably.

``init`` looks at everything first and refuses before it creates anything; then each step compares
what is with what should be and changes the difference. A run that was stopped is completed by the
next, and a run with nothing to do changes nothing. ``destroy`` takes it all away again.
"""

from __future__ import annotations

from pgrecall.ops.provision.checks import DEFAULT_DIMENSIONS, MAX_DIMENSIONS
from pgrecall.ops.provision.credentials import ROLES, dsn_for, role_name, service_name
from pgrecall.ops.provision.initialise import init
from pgrecall.ops.provision.report import InitReport, Progress, Step
from pgrecall.ops.provision.teardown import DestroyReport, destroy

__all__ = [
    "DEFAULT_DIMENSIONS",
    "MAX_DIMENSIONS",
    "ROLES",
    "DestroyReport",
    "InitReport",
    "Progress",
    "Step",
    "destroy",
    "dsn_for",
    "init",
    "role_name",
    "service_name",
]
