"""MCP over HTTP: who may ask, and by which names of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.routing import BaseRoute

LOCAL_HOSTS = ("127.0.0.1:*", "localhost:*", "[::1]:*", "127.0.0.1", "localhost", "[::1]")
"""Names by which this machine may be asked; ``:*`` stands for every port."""
LOCAL_ORIGINS = ("http://127.0.0.1:*", "http://localhost:*", "http://[::1]:*")
"""Pages that this machine serves itself."""


def asgi_app(
    server: MCPServer,
    allowed_hosts: Sequence[str] = LOCAL_HOSTS,
    allowed_origins: Sequence[str] = LOCAL_ORIGINS,
) -> Starlette:
    """Return an application that answers at ``/mcp``, with a lifespan of its own.

    Every request stands alone: any process may answer it, with the rights of its own key.

    Args:
        server: Made by ``make_mcp``; it can be served once.
        allowed_hosts: Names in the ``Host`` header that are answered. Others are refused, so that
            no web page reaches the memory under a name that leads here.
        allowed_origins: Pages that may ask from a browser; those of this machine unless given.
    """
    return server.streamable_http_app(
        streamable_http_path="/mcp",
        json_response=True,
        stateless_http=True,
        transport_security=TransportSecuritySettings(
            allowed_hosts=[*allowed_hosts], allowed_origins=[*allowed_origins]
        ),
    )


def routes(
    server: MCPServer,
    allowed_hosts: Sequence[str] = LOCAL_HOSTS,
    allowed_origins: Sequence[str] = LOCAL_ORIGINS,
) -> Sequence[BaseRoute]:
    """Return the routes of ``asgi_app``, for another application, which then runs ``running``.

    Mounted below a path they would answer ``/mcp`` with a redirection, which clients don't follow.
    """
    return asgi_app(server, allowed_hosts, allowed_origins).routes


@asynccontextmanager
async def running(server: MCPServer) -> AsyncIterator[None]:
    """Let a server whose routes another application has taken answer, in its lifespan."""
    async with server.session_manager.run():
        yield
