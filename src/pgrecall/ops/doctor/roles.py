"""Checks of roles: what they may do beyond their work, and what they lack for it."""

from __future__ import annotations

from pgrecall.driver.settings import RECALL_SETTINGS
from pgrecall.ops.checks import Seen
from pgrecall.ops.doctor.facts import Facts, Role

WANTED_SETTINGS = tuple(RECALL_SETTINGS)
_STRONG = "scram-sha-256"
_CARRIERS = ("owner", "app", "readonly")


def power(facts: Facts) -> Seen:
    """No role of the memory may do more than its work."""
    if not facts.roles:
        return _no_roles(facts)
    faults: list[str] = []
    remedies: list[str] = []
    for role in facts.roles:
        for fault, remedy in _excess(role):
            faults.append(f"{role.name} {fault}")
            remedies.append(remedy)
    if faults:
        return Seen("failed", "; ".join(faults), "; ".join(remedies))
    return Seen("passed", f"{', '.join(role.name for role in facts.roles)}: no more than needed")


def _excess(role: Role) -> list[tuple[str, str]]:
    """Return what ``role`` has beyond its work, each with the command that takes it away."""
    attributes = [
        ("superuser", "SUPERUSER", role.superuser),
        ("allowed to create roles", "CREATEROLE", role.create_role),
        ("allowed to create databases", "CREATEDB", role.create_database),
        ("allowed to replicate", "REPLICATION", role.replication),
        # Backups must see every row, whatever policies say.
        ("above row-level security", "BYPASSRLS", role.bypass_rls and role.purpose != "backup"),
    ]
    excess = [
        (f"is {words}", f'ALTER ROLE "{role.name}" NO{attribute}')
        for words, attribute, held in attributes
        if held
    ]
    if role.purpose == "owner":
        return excess
    if role.owns:
        owner = role.name.removesuffix(role.purpose) + "owner"
        excess.append(
            (
                f"owns {', '.join(role.owns)}",
                "; ".join(f'ALTER TABLE {name} OWNER TO "{owner}"' for name in role.owns),
            )
        )
    # A superuser may everything; taking that away is the remedy.
    if role.creates_in_public and not role.superuser:
        excess.append(
            (
                "may create objects in schema public",
                f'REVOKE CREATE ON SCHEMA public FROM "{role.name}"',
            )
        )
    return excess


def public_rights(facts: Facts) -> Seen:
    """Not everybody may read the memory or create objects beside it."""
    if facts.public_rights:
        return Seen(
            "failed",
            "everybody (PUBLIC) has "
            + "; ".join(f"{right.privilege} on {right.object}" for right in facts.public_rights),
            "; ".join(
                f"REVOKE {right.privilege} ON {right.object.replace('schema ', 'SCHEMA ')} "
                "FROM PUBLIC"
                for right in facts.public_rights
            ),
        )
    return Seen("passed", "PUBLIC has no right on the tables, and may not create in schema public")


def passwords(facts: Facts) -> Seen:
    """Passwords are kept as SCRAM verifiers."""
    if facts.server.password_encryption != _STRONG:
        return Seen(
            "warning",
            f"password_encryption = {facts.server.password_encryption}: new passwords are kept in "
            "a weak form",
            "ALTER SYSTEM SET password_encryption = 'scram-sha-256'; SELECT pg_reload_conf()",
        )
    if facts.weak_passwords is None:
        return Seen(
            "not configured",
            "password_encryption = scram-sha-256; how existing passwords are kept cannot be seen "
            f"by {facts.server.role}, only by a superuser",
            "run `pgrecall doctor --owner-dsn DSN` with the connection string of a superuser",
        )
    if facts.weak_passwords:
        return Seen(
            "failed",
            f"passwords not kept as SCRAM: {', '.join(facts.weak_passwords)}",
            "set them anew: \\password ROLE in psql, or `pgrecall init --reset-passwords` for "
            "roles of pgrecall",
        )
    return Seen("passed", "password_encryption = scram-sha-256, no role has a weaker password")


def settings(facts: Facts) -> Seen:
    """The roles carry the settings that recalls work best with."""
    carriers = [role for role in facts.roles if role.purpose in _CARRIERS]
    if not carriers:
        return _no_roles(facts)
    missing = {
        role.name: [name for name in WANTED_SETTINGS if name not in role.settings]
        for role in carriers
    }
    faults = [f"{name} lacks {', '.join(lacks)}" for name, lacks in missing.items() if lacks]
    if faults:
        return Seen(
            "warning",
            f"reduced: {'; '.join(faults)}; the client sets what it needs for each query, other "
            "programs should",
            "run `pgrecall init` as a superuser, who may attach settings to roles",
        )
    return Seen("passed", f"{', '.join(missing)} carry {', '.join(WANTED_SETTINGS)}")


def _no_roles(facts: Facts) -> Seen:
    return Seen(
        "not configured",
        f"no role of this database exists, such as {facts.server.role_prefix}_app",
        "run `pgrecall init` to create them",
    )
