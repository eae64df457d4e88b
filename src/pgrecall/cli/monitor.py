"""``pgrecall monitor``: metrics of a database for Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pgrecall.cli.options import JsonFlag
from pgrecall.cli.output import Column, printer, state, working

app = typer.Typer(help="Watch the database: metrics for Prometheus, samples, probes of recall.")


@app.callback(invoke_without_command=True)
def monitor(
    context: typer.Context,
    monitor_dsn: Annotated[
        str | None,
        typer.Option(
            "--monitor-dsn",
            envvar="PGRECALL_MONITOR_DSN",
            metavar="DSN",
            help="Connection string of the monitor role, instead of what init wrote.",
        ),
    ] = None,
    pooler_dsn: Annotated[
        str | None,
        typer.Option(
            metavar="DSN",
            help="Where PgBouncer is, to watch its pools too: host=pooler port=6432.",
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address at which metrics are served.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Port there; 0 for a free one.")
    ] = 9188,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time between two samples.")
    ] = 60.0,
    probe_interval: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time between two probes of recall; 0: none.")
    ] = 300.0,
    probe_budget: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="How long exact searches of a probe may take."),
    ] = 5.0,
    operations_lag: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="How old a metric's row must be to be counted."),
    ] = 30.0,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="How long a scrape may take; less than Prometheus waits for it.",
        ),
    ] = 8.0,
    disk: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A path on the disk of the server's data, if that cannot be found out.",
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Write one sample, print the metrics once, and end.")
    ] = False,
    as_json: JsonFlag = None,
) -> None:
    """Watch the database until stopped: serve its metrics to Prometheus, and sample it.

    Connects as the monitor role, which sees counts, sizes and times, but no row of an agent.
    """
    if context.invoked_subcommand is not None:
        return
    from pgrecall.cli.stopping import stopped_by_signals
    from pgrecall.config import load_settings
    from pgrecall.ops import monitor as monitoring
    from pgrecall.targets import resolve_dsn
    from pgrecall.telemetry.logs import configure

    show = printer(as_json)
    settings = load_settings(monitor_dsn=monitor_dsn)
    configure(settings)
    service = monitoring.load_service()
    with working("looking for the memory", at_once=False) as progress:
        target = resolve_dsn(settings, "monitor", progress=progress)
    request = service.MonitorRequest(
        dsn=target,
        listen=listen,
        port=port,
        interval=interval,
        probe_interval=probe_interval,
        probe_budget=probe_budget,
        operations_lag=operations_lag,
        timeout=timeout,
        disk=disk,
        pooler_dsn=pooler_dsn,
    )
    if once:
        watched = service.Monitor(request)
        try:
            sampled = watched.sampler.sample()
            show.plain(watched.scrape())
        finally:
            watched.close()
        raise typer.Exit(0 if sampled else 1)

    def announce(address: str) -> None:
        if show.asked_for_json:
            show.data({"metrics": address})
        else:
            show.line(f"metrics: {address}")

    with stopped_by_signals() as stop:
        service.run(request, stop, announce)


@app.command("config")
def config(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go.")],
    objective: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An objective that the alerts follow from, such as backup_age_seconds=7200; "
            "repeatable.",
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JOB=HOST:PORT",
            help="What Prometheus is to scrape; the jobs are monitor, agents, postgres and "
            "pgbouncer; repeatable.",
        ),
    ] = None,
    runbooks: Annotated[
        str,
        typer.Option(metavar="URL", help="Directory or URL that the alerts' runbooks lie in."),
    ] = "docs/runbooks",
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that somebody changed, too.")
    ] = False,
    as_json: JsonFlag = None,
) -> None:
    """Write what Prometheus, Alertmanager, the postgres exporter and Grafana need.

    It can be repeated with other objectives: files that nobody changed are replaced.
    """
    from pgrecall.ops.monitor import files
    from pgrecall.ops.monitor.objectives import parse_objectives

    show = printer(as_json)
    request = files.MonitoringRequest(
        objectives=parse_objectives(objective or ()),
        runbooks=runbooks,
        targets=files.parse_targets(target or ()),
    )
    written = files.write(directory, request, force=force)
    if show.as_json:
        show.data({"directory": directory.absolute(), "files": written})
        return
    show.table(
        [
            Column(name="file", wraps=True, share=2),
            Column(name="state"),
            Column(name="for", wraps=True, share=2, from_width=90),
        ],
        [(str(item.path), state(item.state), item.purpose) for item in written],
    )
    show.line(f"start      prometheus --config.file={directory / files.PROMETHEUS}")
