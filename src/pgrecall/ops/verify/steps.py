"""The specification's validation steps, those about rights, pooler and catalog aside."""

from __future__ import annotations

import itertools

import psycopg

from pgrecall.ops.checks import Seen, Status
from pgrecall.ops.monitor.objectives import Objectives
from pgrecall.ops.verify import catalog, twin
from pgrecall.ops.verify.cases import Subject
from pgrecall.ops.verify.session import Session, describe

_ROUNDING = 1e-3
_DISTANCE = 5.196152422706632
_OLDEST_SAMPLE_SECONDS = 600
_HNSW = ("idx_episodes_embedding", "idx_knowledge_embedding")
_REFUSED = {
    "refused_quality": "agent_episodes accepted an outcome_quality of 1.5",
    "refused_control_mode": "agent_episodes accepted the control_mode 'unheard_of'",
    "refused_confidence": "agent_knowledge accepted a confidence of -0.1",
    "refused_knowledge_type": "agent_knowledge accepted the knowledge_type 'rumour'",
    "refused_two_episodes": "agent_knowledge accepted an active row with two supporting episodes",
    "refused_no_episodes": "agent_knowledge accepted an active row without supporting episodes",
}
_MIGRATE = "compare with a fresh database, and restore the definition; `pgrecall doctor` tells more"


def vector_works(subject: Subject) -> Seen:
    """Step 1: pgvector computes."""
    distance = subject.session.one("distance")["distance"]
    evidence = f"'[1,2,3]' <-> '[4,5,6]' = {distance}"
    if abs(distance - _DISTANCE) > 1e-9:
        return Seen("failed", f"{evidence}, expected {_DISTANCE}", "reinstall pgvector")
    return Seen("passed", evidence)


def core_tables(subject: Subject) -> Seen:
    """Step 3: the tables have the specified columns and rules, and the rules hold."""
    wrong = [
        difference
        for difference in catalog.compare(subject.catalog, subject.expected)[0]
        if difference.section in ("tables", "columns", "constraints")
    ]
    faults = [str(item) for item in wrong if not catalog.is_old_evidence_check(item)]
    old_evidence_check = any(catalog.is_old_evidence_check(item) for item in wrong)
    if not any(item.section == "tables" and item.found is None for item in wrong):
        faults += _behaviour(subject.session, skip_empty_evidence=old_evidence_check)
    if faults:
        return Seen("failed", "; ".join(faults), _MIGRATE)
    if old_evidence_check:
        return Seen("warning", OLD_EVIDENCE, OLD_EVIDENCE_REMEDY)
    count = len(subject.expected["columns"])
    return Seen(
        "passed",
        f"{count} columns and {len(subject.expected['constraints'])} constraints as expected; 2 "
        f"sample episodes accepted, {len(_REFUSED)} forbidden rows refused (temporary copies)",
    )


OLD_EVIDENCE = (
    "chk_min_supporting_episodes is the specification's own check, which accepts active knowledge "
    "without any supporting episode; adoption left it since rows need it"
)
OLD_EVIDENCE_REMEDY = (
    "`pgrecall doctor` names the rows; give them three supporting episodes or retire them, then "
    "run `pgrecall init` again"
)


def _behaviour(session: Session, *, skip_empty_evidence: bool) -> list[str]:
    """Try rows on temporary twins; return what went wrong."""
    twin.make(session, "agent_episodes")
    twin.make(session, "agent_knowledge")
    with session.read_only():
        return [*_samples(session), *_forbidden(session, skip_empty_evidence=skip_empty_evidence)]


def _samples(session: Session) -> list[str]:
    try:
        with session.attempt():
            rows = session.rows("insert_episodes")
    except psycopg.Error as error:
        return [f"agent_episodes refused a sample episode: {describe(error)}"]
    if len(rows) != 2 or not all(
        row["episode_id"] and row["is_now"] and row["control_mode"] == "rule_based_only"
        for row in rows
    ):
        return [f"defaults of agent_episodes gave unexpected values: {rows}"]
    return []


def _forbidden(session: Session, *, skip_empty_evidence: bool) -> list[str]:
    faults = []
    for name, fault in _REFUSED.items():
        if name == "refused_no_episodes" and skip_empty_evidence:
            continue
        try:
            with session.attempt():
                session.run(name)
        except psycopg.errors.CheckViolation:
            continue
        faults.append(fault)
    return faults


def vector_indexes(subject: Subject) -> Seen:
    """Step 4: there are two vector indexes, usable and with the specified parameters."""
    found, wanted = subject.catalog["indexes"], subject.expected["indexes"]
    faults = [
        f"{name} expected: {wanted[name]} found: {found.get(name, 'nothing')}"
        for name in _HNSW
        if found.get(name) != wanted[name]
    ]
    rows = subject.session.rows("hnsw_indexes")
    names = [row["name"] for row in rows]
    if len(names) != len(_HNSW):
        faults.append(f"{len(names)} HNSW indexes instead of 2: {', '.join(names) or 'none'}")
    if faults:
        return Seen(
            "failed",
            "; ".join(faults),
            "drop what is superfluous or invalid, and create what is missing as expected above, "
            "with CREATE INDEX CONCURRENTLY while agents are at work",
        )
    return Seen("passed", f"2 HNSW indexes, valid: {'; '.join(row['definition'] for row in rows)}")


def search_results(subject: Subject) -> Seen:
    """Step 5: a similarity search returns rows in order; the twin is full of vectors already."""
    rows = subject.session.rows("ranked_search", {"dimensions": subject.dimensions})
    similarities: list[float] = [row["similarity"] for row in rows]
    # The index holds vectors of length 1, in the column's own precision.
    ordered = all(a >= b - _ROUNDING for a, b in itertools.pairwise(similarities))
    bounded = all(abs(s) <= 1 + _ROUNDING for s in similarities)
    if len(similarities) != 10 or not ordered or not bounded:
        return Seen(
            "failed",
            f"expected 10 rows in order of cosine similarity, found {similarities}",
            "reinstall pgvector; if that does not help: REINDEX INDEX CONCURRENTLY "
            "public.idx_episodes_embedding",
        )
    return Seen(
        "passed",
        f"10 of {twin.VECTORS} rows, similarity {similarities[0]:.4f} down to "
        f"{similarities[-1]:.4f}; for its time see TC-DB-004",
    )


def functions_work(subject: Subject) -> Seen:
    """Step 7: clean-up, its trigger and the recording of metrics do what they should."""
    session = subject.session
    twin.make(session, "agent_working_memory")
    twin.make(session, "agent_memory_metrics")
    faults: list[str] = []
    seen: list[str] = []
    for try_ in (_cleanup, _trigger, _record):
        try:
            with session.attempt():
                fault, evidence = try_(session)
        except psycopg.errors.ReadOnlySqlTransaction as error:
            return Seen(
                "warning",
                f"a function writes to other tables than the specification's and could not be "
                f"run without touching real rows: {describe(error)}",
                "compare its definition with a fresh database's",
            )
        except psycopg.Error as error:
            fault, evidence = [describe(error)], ""
        faults += fault
        seen.append(evidence)
    if faults:
        return Seen(
            "failed", "; ".join(faults), "restore the function or trigger from a fresh database"
        )
    return Seen("passed", "; ".join(seen))


def _cleanup(session: Session) -> tuple[list[str], str]:
    rows, how = twin.run_function(
        session,
        "cleanup_expired_working_memory",
        "",
        "call_cleanup",
        prepare=lambda: session.run("insert_sessions"),
        observe=lambda: {row["name"]: row for row in session.rows("sessions")},
    )
    wanted = {"expired": False, "live": True, "closed": False, "unending": True}
    name = "cleanup_expired_working_memory()"
    faults = []
    if set(rows) != set(wanted):
        faults.append(f"{name} expected: no row added or deleted, found: {sorted(rows)}")
    for session_name, active in wanted.items():
        row = rows.get(session_name)
        if row is not None and row["is_active"] is not active:
            faults.append(
                f"{name} expected: {session_name} session is_active = {active}, "
                f"found: {row['is_active']}"
            )
    return faults, f"{name}: 1 expired session of 4 deactivated ({how})"


def _trigger(session: Session) -> tuple[list[str], str]:
    with session.read_only():
        session.run("insert_sessions")
        session.run("update_session")
        touched = {row["name"]: row["touched"] for row in session.rows("sessions")}
    name = "trg_update_working_memory_timestamp"
    if touched != {"expired": False, "live": True, "closed": False, "unending": False}:
        return [f"{name} expected: last_updated renewed by an update, found: unchanged"], ""
    return [], f"{name}: last_updated renewed"


def _record(session: Session) -> tuple[list[str], str]:
    rows, how = twin.run_function(
        session,
        "record_memory_operation",
        "character varying, integer, integer, character varying",
        "call_record",
        prepare=lambda: None,
        observe=lambda: [tuple(row.values()) for row in session.rows("metrics")],
    )
    wanted = [("recall_similar", 5, 3, "TEST", True), ("verify", 7, 0, None, True)]
    name = "record_memory_operation()"
    if rows != wanted:
        return [f"{name} expected: the rows {wanted}, found: {rows}"], ""
    return [], f"{name}: 2 of 2 metrics recorded ({how})"


def monitoring(subject: Subject) -> Seen:
    """Step 8: the monitor runs, which shows by the samples that it writes."""
    rows = subject.session.rows("monitoring")
    if not rows:
        return Seen(
            "not configured",
            "nobody has sampled this database yet",
            "run `pgrecall monitor`, and let Prometheus scrape it",
        )
    sample = rows[0]
    recall = "" if sample["recall"] is None else f"; recall of the index {sample['recall']:.3f}"
    evidence = (
        f"last sample {sample['age']:.0f} s ago: {sample['episode_count']} episodes, "
        f"{sample['strategy_count']} active knowledge{recall}"
    )
    if sample["age"] > _OLDEST_SAMPLE_SECONDS:
        return Seen(
            "failed",
            f"{evidence}; expected one in the last {_OLDEST_SAMPLE_SECONDS} s",
            "see why `pgrecall monitor` does not run or cannot write, and start it again",
        )
    return Seen("passed", evidence)


def backups(subject: Subject) -> Seen:
    """Step 9: backups are made, and one was restored for trial, as their runs record it."""
    runs = {row["task"]: row for row in subject.session.rows("backups")}
    wanted = Objectives()
    texts = {
        "backup": ("backup", "pgrecall backup create", wanted.backup_age_seconds),
        "restore_drill": (
            "restore drill",
            "pgrecall backup verify",
            wanted.restore_drill_age_seconds,
        ),
    }
    evidence, remedies, missing = [], [], 0
    for task, (name, command, oldest) in texts.items():
        run = runs[task]
        if run["age"] is None:
            missing += 1
            evidence.append(f"no {name} of this database was ever recorded")
        else:
            size = "" if run["bytes"] is None else f", {run['bytes'] / 1e6:,.1f} MB"
            evidence.append(f"last good {name} {_ago(run['age'])} ago{size}")
        if run["last_failed"]:
            evidence.append(f"the last {name} failed: {run['error']}")
        if run["age"] is None or run["age"] > oldest or run["last_failed"]:
            remedies.append(f"run `{command}`, and have it run by a schedule")
    failed = len(remedies) > missing
    status: Status = "failed" if failed else "not configured" if missing else "passed"
    return Seen(status, "; ".join(evidence), "; ".join(remedies) or None)


def _ago(seconds: float) -> str:
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
