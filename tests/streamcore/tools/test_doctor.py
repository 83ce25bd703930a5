"""The doctor says what is missing, what that means, and what to do."""

import importlib
import json
import os

import pytest

from streamcore.tools import doctor


def findings(capsys):
    status = doctor.examine(as_json=True)
    told = json.loads(capsys.readouterr().out)["findings"]
    return status, {each["what"]: (each["state"], each["words"]) for each in told}


def test_here_nothing_is_broken(capsys):
    status, told = findings(capsys)
    assert status == 0
    assert {state for state, _ in told.values()} <= {"ok", "missing"}
    assert told["native modules"][0] == told["shared memory"][0] == told["libpcap"][0] == "ok"


def without(monkeypatch, name):
    real = importlib.import_module

    def import_module(wanted, *more):
        if wanted == name:
            raise ImportError(f"No module named {name!r}")
        return real(wanted, *more)

    monkeypatch.setattr(doctor.importlib, "import_module", import_module)


def test_native_modules_that_are_not_built(capsys, monkeypatch):
    without(monkeypatch, "streamcore.sink._encode")
    status, told = findings(capsys)
    assert status == 1
    assert told["native modules"][0] == "broken"
    assert "make build" in told["native modules"][1]


def test_an_extra_that_is_not_there_breaks_nothing(capsys, monkeypatch):
    without(monkeypatch, "hyperscan")
    status, told = findings(capsys)
    assert (status, told["hyperscan"][0]) == (0, "missing")
    assert "pip install 'streamcore-auction[scan]'" in told["hyperscan"][1]


def test_no_shared_memory(capsys, monkeypatch):
    def memfd_create(_name):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", memfd_create)
    status, told = findings(capsys)
    assert (status, told["shared memory"][0]) == (1, "broken")


@pytest.mark.parametrize(("free_kib", "state"), [(100_000, "missing"), (4_000_000, "ok")])
def test_memory(capsys, monkeypatch, tmp_path, free_kib, state):
    file = tmp_path / "meminfo"
    file.write_text(f"MemTotal: 9 kB\nMemAvailable:   {free_kib} kB\n")
    monkeypatch.setattr(doctor, "MEMORY_INFORMATION", file)
    assert findings(capsys)[1]["memory"][0] == state


def test_for_people_it_is_one_line_each(capsys):
    assert doctor.examine(as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(doctor.CHECKS)
    assert all(line.split()[0] in ("ok", "missing", "broken") for line in lines)
