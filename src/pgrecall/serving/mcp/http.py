"""MCP over HTTP: who may ask, and by which names of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from pgrecall.serving.mcp.ending import all_ended

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
"""Names by which this machine may always be asked."""


def asgi_app(server: MCPServer, hosts: Collection[str] | None = None) -> Starlette:
    """Return an application that answers at ``/mcp``, with a lifespan of its own.

    Every request stands alone: any process may answer it, with the rights of its own key.

    Args:
        server: Made by ``make_mcp``; it can be served once.
        hosts: Names that it is asked by, besides this machine's own. Others are refused, and so are
            pages from elsewhere, so that none reaches the memory under a name that leads here.
            ``*`` refuses none, for servers where whoever asks needs a key.
    """
    names = [*LOCAL_HOSTS, *(hosts or ())]
    with_ports = [one for name in names for one in (name, f"{name}:*")]
    return server.streamable_http_app(
        streamable_http_path="/mcp",
        json_response=True,
        stateless_http=True,
        transport_security=TransportSecuritySettings(
            enable_dns_rebinding_protection="*" not in names,
            allowed_hosts=with_ports,
            allowed_origins=[f"{scheme}://{one}" for scheme in ("http", "https")
                             for one in with_ports],
        ),
    )  # fmt: skip


def routes(server: MCPServer, hosts: Collection[str] | None = None) -> Sequence[BaseRoute]:
    """Return the routes of ``asgi_app``, for another application, which then runs ``running``.

    Mounted below a path they would answer ``/mcp`` with a redirection, which clients don't follow.
    """
    return asgi_app(server, hosts).routes


@asynccontextmanager
async def running(server: MCPServer) -> AsyncIterator[None]:
    """Let a server whose routes another application has taken answer, in its lifespan."""
    async with server.session_manager.run():
        yield
    await all_ended()
