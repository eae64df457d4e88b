"""What embedders behind HTTP have in common; how each speaks to its server is in its own file."""

from __future__ import annotations

import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from pgrecall.embedding.answers import check_text, unit_vectors
from pgrecall.embedding.base import Mode
from pgrecall.embedding.known import known
from pgrecall.embedding.perprocess import PerProcess
from pgrecall.embedding.resilience import Guard, Policy, Refusal
from pgrecall.errors import EmbeddingError, EmbeddingRefused
from pgrecall.models import VectorLike

# A text that every model takes: what refuses it too, refuses for another reason.
_PROBE = "hello"
_PROBE_HOLDS = 60.0


@dataclass(frozen=True, slots=True, repr=False)
class Connection:
    """A provider's own client, and what of it must not be told."""

    client: Any
    secrets: tuple[str, ...]


class ServedEmbedder(ABC):
    """Embeds texts with a model that a server runs. Safe to share between threads and forks.

    Args:
        model: The server's name for the model.
        width: The length of vectors to ask the server for; None leaves it to the model.
        expected: The length they should have, where neither ``width`` nor what is known of the
            model tells; None asks the server.
        policy: How long to wait and how often to try; None takes the settings.
    """

    provider: ClassVar[str]
    title: ClassVar[str]
    # Most texts of a request, and most tokens where the server limits them.
    most_texts: ClassVar[int]
    most_tokens: ClassVar[int | None] = None
    # Longer texts are cut before they are sent.
    characters_per_token: ClassVar[int]

    def __init__(
        self,
        model: str,
        *,
        width: int | None = None,
        expected: int | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.model = model
        self._known = known(model)
        self._asked = width
        self._width = width or self._known.dimensions or expected
        self._policy = policy or Policy.of()
        self._name = f"{self.title}'s model {model}"
        self._guard = Guard(self._name, self._policy)
        self._last_good = float("-inf")
        self._connection = PerProcess(partial(self._connect, self._policy))
        # Connections left to the garbage collector would be reported as leaks.
        weakref.finalize(self, _close, self._connection)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.identity}>"

    @property
    def identity(self) -> str:
        """Provider, model, and the length of vectors where one was asked for."""
        width = "" if self._asked is None else f"@{self._asked}"
        return f"{self.provider}:{self.model}{width}"

    @property
    def dimensions(self) -> int:
        """Length of every vector; of a model that is not known, the server is asked once.

        Raises:
            EmbeddingError: It could not tell.
        """
        if self._width is None:
            try:
                self._vectors([_PROBE])
            except Refusal as refusal:
                raise self._useless(refusal) from refusal.__cause__
        assert self._width is not None  # noqa: S101
        return self._width

    @property
    def max_tokens(self) -> int:
        """Tokens read of each text."""
        return self._known.max_tokens

    @property
    def available(self) -> bool:
        """True: it makes vectors."""
        return True

    def embed(self, texts: Sequence[str], mode: Mode = "document") -> Sequence[VectorLike]:
        """Return one unit vector (``numpy.ndarray``, float32) for each text, in order.

        Raises:
            EmbedderUnavailable: The server is down, slow or refuses for now.
            EmbeddingRefused: It takes one of the texts at no time.
            EmbeddingError: It cannot be used, or what came back are not the vectors expected.
        """
        prompt = self._known.prompt(mode)
        most = self.max_tokens * self.characters_per_token
        count = len(texts)
        sent = [(prompt + check_text(text, i, count))[:most] for i, text in enumerate(texts)]
        vectors: list[VectorLike] = []
        for places in self._batches(sent):
            vectors.extend(self._part(sent, places))
        return vectors

    def close(self) -> None:
        """Close this process's connections; the next call opens new ones."""
        _close(self._connection)

    @staticmethod
    @abstractmethod
    def _connect(policy: Policy) -> Connection:
        """Make the provider's client.

        Raises:
            EmbeddingError: What the environment says of the server cannot be meant.
        """

    @abstractmethod
    def _ask(self, texts: list[str]) -> Any:
        """Send one request, once, and return what came for vectors.

        Raises:
            Passing: It failed in a way that may pass.
            Refusal: The server does not take these texts.
            EmbeddingError: Only the operator can help.
        """

    def _batches(self, sent: list[str]) -> Iterator[list[int]]:
        """Group places in order, within the limits of a request."""
        batch: list[int] = []
        tokens = 0
        for place, text in enumerate(sent):
            # A token is a byte at least, and the server refuses or cuts longer texts.
            cost = min(len(text.encode()), self.max_tokens)
            full = self.most_tokens is not None and tokens + cost > self.most_tokens
            if batch and (full or len(batch) == self.most_texts):
                yield batch
                batch, tokens = [], 0
            batch.append(place)
            tokens += cost
        if batch:
            yield batch

    def _part(self, sent: list[str], places: list[int]) -> list[VectorLike]:
        """Embed the texts at ``places``; those that are too long for the server, shortened."""
        try:
            return self._vectors([sent[place] for place in places], places)
        except Refusal as refused:
            refusal = refused
        self._blame(refusal)
        if len(places) == 1:
            return [self._shortened(sent[places[0]], places[0], refusal)]
        if refusal.status == 413:
            # Too much in all, which says nothing of any one of them.
            half = len(places) // 2
            return self._part(sent, places[:half]) + self._part(sent, places[half:])
        long = [place for place in places if self._may_be_too_long(sent[place])]
        if not long:
            raise EmbeddingRefused(
                f"{self._name} refused one of {len(places)} texts: {refusal}",
                hint="embed them one by one to find it; pgrecall.embedding.embed_each does so",
            ) from refusal.__cause__
        # Alone, so that a text's vector never depends on which others it was sent with.
        groups = [[place] for place in long]
        if len(long) < len(places):
            groups.append([place for place in places if place not in long])
        found = {
            place: vector
            for group in groups
            for place, vector in zip(group, self._part(sent, group), strict=True)
        }
        return [found[place] for place in places]

    def _may_be_too_long(self, text: str) -> bool:
        return len(text.encode()) > self.max_tokens

    def _shortened(self, text: str, place: int, refusal: Refusal) -> VectorLike:
        """Embed the beginning of a text that was refused, if it may have been too long.

        How many characters a token takes differs: four in English, one or less in Chinese. But it
        takes a byte at least, so as many bytes as tokens always fit.
        """
        if self._may_be_too_long(text):
            # A character that the cut goes through is dropped.
            short = text.encode()[: self.max_tokens - 2].decode(errors="ignore")
            with suppress(Refusal):  # then it is not its length, and the first reason stands
                return self._vectors([short], [place])[0]
        raise EmbeddingRefused(
            f"{self._name} refused text {place + 1}: {refusal}",
            hint="change the text, or store the row without a vector",
            index=place,
        ) from refusal.__cause__

    def _vectors(self, texts: list[str], places: list[int] | None = None) -> list[VectorLike]:
        """Send one request and check what comes back.

        Raises:
            Refusal: The texts were refused, or none of their vectors has a direction.
        """
        rows = self._guard.call(lambda: self._ask(texts))
        found, bad = unit_vectors(rows, len(texts), self._width, self._name, self._width_hint())
        if len(bad) == len(texts):
            raise Refusal("its vector is all zero or has values that are NaN or infinite")
        if bad:
            place = (places or range(len(texts)))[bad[0]]
            raise EmbeddingRefused(
                f"{self._name} gave text {place + 1} a vector that is all zero or has values that "
                f"are NaN or infinite, {found.shape[1]} finite ones were expected",
                hint="change the text, or store the row without a vector",
                index=place,
            )
        self._width = found.shape[1]
        self._last_good = time.monotonic()
        return list(found)

    def _blame(self, refusal: Refusal) -> None:
        """Make sure that it was for a text that they were refused.

        Otherwise a model that the server cannot run would have every text written off.

        Raises:
            EmbeddingError: A text that nobody refuses is refused too.
        """
        if time.monotonic() - self._last_good < _PROBE_HOLDS:
            return
        try:
            self._vectors([_PROBE])
        except Refusal as again:
            raise self._useless(again) from refusal.__cause__

    def _useless(self, refusal: Refusal) -> EmbeddingError:
        return EmbeddingError(
            f"{self._name} gives no vector even for {_PROBE!r}: {refusal}",
            hint="check that it is a model for embeddings"
            + (f" and can make vectors of {self._asked} dimensions" if self._asked else "")
            + ", and what the server's log says",
        )

    def _width_hint(self) -> str:
        if self._asked is not None:
            return (
                f"the server or the model cannot do @{self._asked}: leave it out, or choose "
                "another model"
            )
        return "the name stands for another model there: check which one the server runs"


def _close(connection: PerProcess[Connection]) -> None:
    if (held := connection.take()) is not None:
        held.client.close()
