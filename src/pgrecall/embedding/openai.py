"""Models behind OpenAI's protocol, its own and any compatible server's, by its official client."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import openai

from pgrecall.embedding.resilience import Passing, Policy, failure, harmless, hide, hooks
from pgrecall.embedding.served import Connection, ServedEmbedder
from pgrecall.errors import EmbeddingError

_SET_KEY = "set OPENAI_API_KEY to a key that the server takes"


class OpenAIEmbedder(ServedEmbedder):
    """Embeds text with a model of OpenAI, or of the server at ``OPENAI_BASE_URL``.

    The key is that of ``OPENAI_API_KEY``; a server of one's own may do without.

    Args:
        model: Its name there, such as ``text-embedding-3-small``.
        width: The length of vectors to ask for; None leaves it to the model.
        expected: The length they should have if nothing else tells; None asks the server.
        policy: How long to wait and how often to try; None takes the settings.
    """

    provider = "openai"
    title = "OpenAI"
    # The limits of OpenAI; servers with lower ones answer 413, and get less.
    most_texts = 2048
    most_tokens = 300_000
    # OpenAI cuts nothing: it refuses texts that are too long. English takes four characters a
    # token, JSON and code three; what is denser is refused, and then shortened to what always fits.
    characters_per_token = 3

    @property
    def revision(self) -> None:
        """None: the protocol tells of none."""
        return None

    @staticmethod
    def _connect(policy: Policy) -> Connection:
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        address, login = _address(os.environ.get("OPENAI_BASE_URL", "").strip())
        if not key and address is None:
            raise EmbeddingError(
                "OpenAI asks for a key, and none is set",
                hint=f"{_SET_KEY}; or OPENAI_BASE_URL to a server that asks for none",
            )
        client = openai.OpenAI(
            # The client insists on one.
            api_key=key or "none",
            base_url=address,
            max_retries=0,
            timeout=policy.timeout,
            http_client=openai.DefaultHttpxClient(event_hooks=hooks(policy), auth=login),
        )
        return Connection(client, tuple(secret for secret in (key, *(login or ())[1:]) if secret))

    def _ask(self, texts: list[str]) -> Any:
        connection = self._connection.get()
        secrets = connection.secrets
        asked: Any = openai.omit if self._asked is None else self._asked
        try:
            # In base64, which the client asks for by itself, a vector takes a quarter.
            answer = connection.client.embeddings.create(
                model=self.model, input=texts, dimensions=asked
            )
            return [one.embedding for one in sorted(answer.data, key=lambda one: one.index)]
        except openai.APIStatusError as error:
            said = error.body.get("message") if isinstance(error.body, dict) else None
            message = hide(str(said or error.message), secrets)
            told = failure(error.status_code, message)
            raise told or self._final(error.status_code, message) from harmless(error, secrets)
        except (openai.APITimeoutError, TimeoutError) as error:
            raise Passing("no answer in time") from harmless(error, secrets)
        except (openai.APIConnectionError, OSError) as error:
            cause = error.__cause__ or error
            late = isinstance(cause, TimeoutError)  # version 2 of the client wraps ours, too
            reason = "no answer in time" if late else f"no connection: {hide(str(cause), secrets)}"
            raise Passing(reason) from harmless(error, secrets)
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
            # Whoever answers so is cut off, or does not speak the protocol.
            raise Passing("its answer cannot be read") from harmless(error, secrets)

    def _final(self, status: int, message: str) -> EmbeddingError:
        hint = "check that OPENAI_BASE_URL is the address of a server of OpenAI's protocol"
        if status == 404:
            hint = f"choose a model that the server has, or {hint}, with its /v1"
        elif status in (401, 403):
            hint = _SET_KEY
        return EmbeddingError(f"{self._name}: HTTP {status}: {message}", hint=hint)


def _address(url: str) -> tuple[str | None, tuple[str, str] | None]:
    """Return an address without its login, and the login: httpx logs addresses as they are.

    Raises:
        EmbeddingError: It is none.
    """
    if not url:
        return None, None
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        # Without it, as it may hold a password.
        raise EmbeddingError(
            "OPENAI_BASE_URL is no address", hint="write it as http://HOST:PORT/v1"
        ) from None
    login = None
    if parts.username is not None:
        login = (unquote(parts.username), unquote(parts.password or ""))
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return urlunsplit(plain), login
