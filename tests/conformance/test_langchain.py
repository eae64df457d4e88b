"""LangChain's standard tests of vector stores."""

from __future__ import annotations

import re

import pytest
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from tests.conformance.listed import REFERENCE

from pgrecall import Memory
from pgrecall.integrations.langchain import PgrecallVectorStore


class TestPgrecallVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, pgrecall_memory: Memory) -> VectorStore:
        return PgrecallVectorStore(pgrecall_memory.project("suite"), self.get_embeddings())


def test_the_page_says_how_many_there_are() -> None:
    page = (REFERENCE / "conformance-langgraph.md").read_text()
    (told,) = re.findall(r"all (\d+) pass", page)
    names = [name for name in dir(TestPgrecallVectorStore) if name.startswith("test_")]
    assert len(names) == int(told)
