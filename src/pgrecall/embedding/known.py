"""What is known of models without asking: width, tokens read, words wanted before a text.

A prompt is part of what a vector means. One that changes here makes vectors that don't compare
with those already stored, though the model's name stays: add models, don't change them.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgrecall.embedding.base import Mode

# Of a model that is not in the table. BERT-like models read 512; few read less.
DEFAULT_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Known:
    """What a model's authors say of it.

    Attributes:
        dimensions: Length of its vectors; None where it must be asked.
        max_tokens: How much it reads of a text.
        query: What stands before a query.
        document: What stands before a document.
    """

    dimensions: int | None = None
    max_tokens: int = DEFAULT_TOKENS
    query: str = ""
    document: str = ""

    def prompt(self, mode: Mode) -> str:
        """What stands before a text of this mode."""
        return self.query if mode == "query" else self.document


_SEARCH = "Represent this sentence for searching relevant passages: "
_NOMIC = ("search_query: ", "search_document: ")
_E5 = ("query: ", "passage: ")

# By the name's last part, without organisation and tag. A model whose tags differ in width has
# no width here.
_TABLE = {
    "all-minilm": Known(384, 256),
    "all-minilm-l6-v2": Known(384, 256),
    "all-minilm-l12-v2": Known(384, 128),
    "all-mpnet-base-v2": Known(768, 384),
    "bge-base-en-v1.5": Known(768, 512, _SEARCH),
    "bge-large-en-v1.5": Known(1024, 512, _SEARCH),
    "bge-m3": Known(1024, 8192),
    "bge-small-en-v1.5": Known(384, 512, _SEARCH),
    "e5-base-v2": Known(768, 512, *_E5),
    "e5-large-v2": Known(1024, 512, *_E5),
    "e5-small-v2": Known(384, 512, *_E5),
    "embeddinggemma": Known(768, 2048, "task: search result | query: ", "title: none | text: "),
    "multilingual-e5-base": Known(768, 512, *_E5),
    "multilingual-e5-large": Known(1024, 512, *_E5),
    "multilingual-e5-small": Known(384, 512, *_E5),
    "mxbai-embed-large": Known(1024, 512, _SEARCH),
    "mxbai-embed-large-v1": Known(1024, 512, _SEARCH),
    "nomic-embed-text": Known(768, 2048, *_NOMIC),
    "nomic-embed-text-v1": Known(768, 2048, *_NOMIC),
    "nomic-embed-text-v1.5": Known(768, 2048, *_NOMIC),
    "snowflake-arctic-embed": Known(None, 512, _SEARCH),
    "text-embedding-3-large": Known(3072, 8191),
    "text-embedding-3-small": Known(1536, 8191),
    "text-embedding-ada-002": Known(1536, 8191),
}


def known(model: str) -> Known:
    """Return what is known of a model, by any of its names."""
    last = model.rsplit("/", 1)[-1].lower()
    return _TABLE.get(last) or _TABLE.get(last.partition(":")[0], Known())
