"""Models that Ollama serves, by its official client."""

from __future__ import annotations

import os
import time
from typing import Any

import httpx
import ollama

from pgrecall.embedding.resilience import Passing, Policy, failure, harmless, hide, hooks
from pgrecall.embedding.served import Connection, ServedEmbedder
from pgrecall.errors import EmbeddingError

# As much of a digest as `ollama list` shows.
_DIGEST = 12
# For how long it is believed, in seconds: `ollama pull` may bring other weights at any time.
_BELIEVED = 60.0


class OllamaEmbedder(ServedEmbedder):
    """Embeds text with a model of an Ollama server: the one of ``OLLAMA_HOST``.

    ``OLLAMA_API_KEY`` is sent as bearer token, for servers behind a proxy that asks for one.

    Args:
        model: Its name there, such as ``mxbai-embed-large`` or ``all-minilm:33m``.
        width: The length of vectors to ask for; None leaves it to the model.
        expected: The length they should have if nothing else tells; None asks the server.
        policy: How long to wait and how often to try; None takes the settings.
    """

    provider = "ollama"
    title = "Ollama"
    most_texts = 64
    # The server cuts texts itself; this only spares it megabytes that it would not read.
    characters_per_token = 16

    def __init__(
        self,
        model: str,
        *,
        width: int | None = None,
        expected: int | None = None,
        policy: Policy | None = None,
    ) -> None:
        # Ollama takes both for the same, so both must have one identity.
        model = model.removesuffix(":latest")
        super().__init__(model, width=width, expected=expected, policy=policy)
        self._revision: str | None = None
        self._looked = float("-inf")

    @property
    def revision(self) -> str | None:
        """Beginning of the digest of the model's files there; None if the server does not tell.

        The same name stands for other weights after an ``ollama pull`` that found newer ones.
        """
        if self._revision is None or time.monotonic() - self._looked > _BELIEVED:
            name = self.model if ":" in self.model else f"{self.model}:latest"
            try:
                listed = self._guard.call(lambda: self._send(lambda client: client.list()))
            except EmbeddingError:
                return None
            digests = [one.digest for one in listed.models if one.model == name and one.digest]
            self._revision = digests[0].removeprefix("sha256:")[:_DIGEST] if digests else None
            self._looked = time.monotonic()
        return self._revision

    @staticmethod
    def _connect(policy: Policy) -> Connection:
        key = os.environ.get("OLLAMA_API_KEY")
        try:
            client = ollama.Client(timeout=policy.timeout, event_hooks=hooks(policy))
        except (ValueError, httpx.InvalidURL):
            # Not from it: the address may hold a password.
            raise EmbeddingError(
                "OLLAMA_HOST is no address", hint="write it as http://HOST:PORT"
            ) from None
        return Connection(client, (key,) if key else ())

    def _ask(self, texts: list[str]) -> Any:
        def embed(client: ollama.Client) -> Any:
            return client.embed(self.model, texts, truncate=True, dimensions=self._asked).embeddings

        return self._send(embed)

    def _send(self, call: Any) -> Any:
        """Make a call, and tell failures in our terms."""
        connection = self._connection.get()
        secrets = connection.secrets
        try:
            return call(connection.client)
        except ollama.ResponseError as error:
            message = hide(str(error.error), secrets)
            told = failure(error.status_code, message)
            raise told or self._final(error.status_code, message) from harmless(error, secrets)
        except (httpx.TimeoutException, TimeoutError) as error:
            raise Passing("no answer in time") from harmless(error, secrets)
        except (httpx.TransportError, OSError) as error:
            raise Passing(f"no connection: {hide(str(error), secrets)}") from harmless(
                error, secrets
            )
        except (ValueError, TypeError, AttributeError) as error:
            # What json and pydantic raise. Whoever answers so is cut off, or is no Ollama.
            raise Passing("its answer cannot be read") from harmless(error, secrets)

    def _final(self, status: int, message: str) -> EmbeddingError:
        hint = "check that OLLAMA_HOST is the address of an Ollama server"
        if status == 404:
            hint = f"get the model there with: ollama pull {self.model}; or {hint}"
        elif status in (401, 403):
            hint = "set OLLAMA_API_KEY to a key that the server takes"
        return EmbeddingError(f"{self._name}: HTTP {status}: {message}", hint=hint)
