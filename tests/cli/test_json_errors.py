"""With --json every failure is one JSON document on standard output, also where the command line itself is wrong."""

from __future__ import annotations

import json
import sys

import pytest

from medgcsam.__main__ import main
from medgcsam.cli import app

VERBS = sorted(command.name for command in app.registered_commands)


def fail(monkeypatch, capsys, *arguments: str) -> tuple[int, dict, str]:
    """Exit code, the document on stdout, and stderr."""
    monkeypatch.setattr(sys, "argv", ["medgcsam", *arguments])
    with pytest.raises(SystemExit) as leaving:
        main()
    out, err = capsys.readouterr()
    return leaving.value.code, json.loads(out), err


@pytest.mark.parametrize("verb", VERBS)
def test_a_misspelt_option(verb, monkeypatch, capsys):
    code, document, err = fail(monkeypatch, capsys, verb, "--json", "--nonsense")
    assert (code, document["exit_code"]) == (2, 2)
    assert "--nonsense" in document["error"]
    assert f"medgcsam {verb}" in err, "the usage is for people"


def test_no_such_verb_and_a_missing_option(monkeypatch, capsys):
    assert "chek" in fail(monkeypatch, capsys, "chek", "--json")[1]["error"]
    assert "--config" in fail(monkeypatch, capsys, "check", "--json")[1]["error"]


def test_an_error_and_a_bug(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, document, err = fail(monkeypatch, capsys, "import", "absent", "--json")
    assert (code, document) == (3, {"error": err.strip(), "exit_code": 3})
    monkeypatch.setattr("medgcsam.recipes.doctor.examine", lambda output: {"share": float("nan"), "problems": []})
    code, document, err = fail(monkeypatch, capsys, "doctor", "--json")
    assert (code, document) == (1, {"error": err.strip(), "exit_code": 1})


def test_ctrl_c_where_a_verb_does_not_answer_it(monkeypatch, capsys):
    def stop(output):
        raise KeyboardInterrupt

    monkeypatch.setattr("medgcsam.recipes.doctor.examine", stop)
    code, document, err = fail(monkeypatch, capsys, "doctor", "--json")
    assert (code, document) == (75, {"error": err.strip(), "exit_code": 75})
