from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main

from pgrecall.cli.app import app
from pgrecall.config import Settings

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = ROOT / "tools" / "cli_reference.py"
    spec = importlib.util.spec_from_file_location("cli_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(command: Any, words: str = "pgrecall") -> Iterator[tuple[str, Any]]:
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{words} {name}")


ALL = dict(commands(typer.main.get_command(app)))


def test_the_reference_is_what_would_be_written(tool: ModuleType) -> None:
    assert (REFERENCE / "cli.md").read_text() == tool.cli_text(), "run: make generate"
    assert (REFERENCE / "settings.md").read_text() == tool.settings_text(), "run: make generate"


@pytest.mark.parametrize("words", ALL)
def test_every_command_and_flag_is_in_the_reference(words: str) -> None:
    text = (REFERENCE / "cli.md").read_text()
    heading = f"# {words}\n"
    assert heading in text
    section = text.split(heading)[1].split("\n## ")[0].split("\n### ")[0]
    for parameter in ALL[words].params:
        if parameter.param_type_name == "option" and "--json" not in parameter.opts:
            for flag in (*parameter.opts, *parameter.secondary_opts):
                assert f"`{flag}`" in section


@pytest.mark.parametrize("words", ALL)
def test_every_command_takes_json_and_explains_itself(words: str) -> None:
    command = ALL[words]
    flags = [flag for item in command.params for flag in getattr(item, "opts", ())]
    assert "--json" in flags
    assert command.help
    assert all(item.help for item in command.params if item.param_type_name == "option")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_the_reference(name: str) -> None:
    text = (REFERENCE / "settings.md").read_text()
    assert f"`PGRECALL_{name.upper()}`" in text
    assert Settings.model_fields[name].description


def test_the_commands_of_the_contract_exist() -> None:
    nouns = {
        "episodes": "record import export recall outcome show list delete prune merge",
        "knowledge": "add list recall show apply retire",
        "sessions": "open show recall list close expire",
        "embeddings": "status backfill switch",
        "metrics": "prune",
        "keys": "create list revoke",
        "pooler": "config",
        "monitor": "config",
        "backup": "create list verify restore rehearse prune",
        "backup pitr": "setup base status recover prune",
    }
    alone = (
        "init destroy dsn start stop status logs migrate verify doctor recall-check demo serve mcp"
    )
    wanted = {f"pgrecall {verb}" for verb in alone.split()}
    wanted |= {f"pgrecall {noun} {verb}" for noun, verbs in nouns.items() for verb in verbs.split()}
    assert wanted <= set(ALL)
    assert set(ALL) - wanted == {"pgrecall", *(f"pgrecall {noun}" for noun in nouns)}
