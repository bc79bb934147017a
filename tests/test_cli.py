"""The ``osum`` program: every command is there, has help, and ends in one line when misused."""

from __future__ import annotations

import importlib
import sys

import pytest

from wenet_osum import cli
from wenet_osum.errors import run_main


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"wenet_osum.bin.{name}").main(["--help"])
    assert end.value.code == 0 and "usage" in capsys.readouterr().out


def test_usage_names_every_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["osum"])
    assert cli.main() == 0
    out = capsys.readouterr().out
    assert all(f"  {name}" in out for name in cli.COMMANDS)


def test_bad_input_unknown_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["osum", "fly"])
    with pytest.raises(SystemExit) as end:
        run_main(cli.main)
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith("error: osum fly: unknown command; choose one of validate")
