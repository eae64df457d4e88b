"""Keys of those who reach the memory over HTTP: how they look, and what is kept of them.

A token is ``pgr_``, the key's identifier and its secret, ``pgr_9f86d081884c_<64 hex digits>``: the
prefix lets scanners of repositories recognise one, the identifier lets a key be named in a list
without its secret. The secret is 256 random bits, which no one tries out, so one SHA-256 of it is
what the database keeps; a slow hash is for passwords that people choose.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

PREFIX = "pgr_"
_TOKEN = re.compile(rf"{PREFIX}([0-9a-f]{{12}})_([0-9a-f]{{64}})", re.ASCII)


class Token(NamedTuple):
    """A key's identifier and its secret."""

    key_id: str
    secret: str

    def text(self) -> str:
        """Return what its owner sends."""
        return f"{PREFIX}{self.key_id}_{self.secret}"


def new_token() -> Token:
    """Return a token that nobody has."""
    return Token(secrets.token_hex(6), secrets.token_hex(32))


def parse_token(text: str) -> Token | None:
    """Return the parts of a token; None of what is none."""
    match = _TOKEN.fullmatch(text)
    return None if match is None else Token(match[1], match[2])


def digest(token: Token) -> bytes:
    """Return what is kept of a token's secret."""
    return hashlib.sha256(bytes.fromhex(token.secret)).digest()


def fits(token: Token, kept: bytes) -> bool:
    """Whether a secret is the one that was kept; takes the same time whatever differs."""
    return hmac.compare_digest(digest(token), kept)


def state(revoked_at: datetime | None, expires_at: datetime | None, now: datetime) -> str:
    """Return ``valid``, ``revoked`` or ``expired``."""
    if revoked_at is not None:
        return "revoked"
    return "expired" if expires_at is not None and expires_at <= now else "valid"


def narrowed(given: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return those of ``given``, each once, in the order of ``known``."""
    return [name for name in known if name in given]
