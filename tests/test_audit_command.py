"""`lo-kernel audit`, and `lo.audit`, where something is mistyped, missing, or can't be written."""

from __future__ import annotations

import datetime
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from lo_kernel import cli
from lo_kernel.errors import LOError
from lo_kernel.kernel.audit.log import AuditLog
from lo_kernel.kernel.audit.reading import AuditReader, when
from lo_kernel.kernel.audit.recorder import Recorder
from lo_kernel.kernel.audit.requests import KernelRecord
from lo_kernel.kernel.monitor import Outcome
from lo_kernel.notebook.audit_view import AuditView
from lo_kernel.settings import Settings


@pytest.fixture
def folder(workspace: Path) -> Any:
    """A workspace with a record: one cell has read one learner, another one nobody."""
    log = AuditLog(workspace)
    log.open()
    recorder = Recorder(log)
    for number, code in enumerate(("await lo.query('words')", "x = 1")):
        token = recorder.begin("execute", {"msg_id": f"m{number}"}, {}, {"code": code})
        if not number:
            recorder.record("query", "words", ["tc-ada"])
        recorder.end(token)
    yield workspace
    log.close()


def audit(folder: Path, *arguments: str) -> int:
    """The command; its exit code."""
    try:
        return cli.main(["audit", *arguments, "--workspace", str(folder)])
    except SystemExit as over:
        return int(str(over.code))


@pytest.mark.parametrize("arguments", [("of", "tc-typo"), ("export", "--format=html", "--student=tc-typo")])
def test_an_unknown_id_is_not_called_never_read(
    folder: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Mistyped or erased: an error says so, and no page that nothing has read this learner."""
    assert audit(folder, *arguments) == 1
    said = capsys.readouterr()
    assert (said.out, "'tc-typo'" in said.err, "mistyped" in said.err) == ("", True, True)
    assert audit(folder, "of", "tc-ada") == 0


def test_an_unknown_id_in_a_notebook(folder: Path) -> None:
    """``lo.audit.of`` raises, too, and says how many were erased."""
    view = AuditView(AuditReader(folder))
    assert len(view.of("tc-ada")) == 1
    for wrong in ("tc-typo", 5):
        with pytest.raises(LOError, match=r"who was erased \(0 here\)"):
            view.of(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("action", ["verify", "show", "export"])
def test_what_stands_after_an_action_is_not_ignored(
    folder: Path, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """``audit verify spring`` doesn't check another workspace and call it whole."""
    assert audit(folder, action, "spring") == 2
    assert "--workspace spring" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("verify",), ("show",), ("delete-text", "words", "--reason=r")])
def test_a_workspace_that_is_not_there(
    tmp_path: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither whole nor made by looking; one without a record is no whole record."""
    assert audit(tmp_path / "typo", *arguments) == 2
    assert "there is no workspace" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()
    (tmp_path / "empty").mkdir()
    assert audit(tmp_path / "empty", *arguments) == 1
    assert "no record" in capsys.readouterr().err
    assert not list((tmp_path / "empty").iterdir())


def test_a_record_that_was_deleted_is_no_new_workspace(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of the record removed: what is kept outside knows that there was one, and says so."""
    shutil.rmtree(folder / "audit")
    assert audit(folder, "verify") == 1
    assert "had another one, of" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["jsonl", "csv", "html"])
def test_an_export_is_for_its_user_alone(folder: Path, tmp_path: Path, form: str) -> None:
    """Mode 0600, also where the file was there before with another."""
    path = tmp_path / "record"
    path.touch(mode=0o644)
    assert audit(folder, "export", f"--format={form}", f"--output={path}") == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_size


@pytest.mark.parametrize("where", ["missing/file", "."])
def test_an_output_that_cannot_be_written(
    folder: Path, tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that says why, no traceback."""
    assert audit(folder, "export", f"--output={tmp_path / where}") == 1
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize("words", [" ", "a ", "=="])
def test_what_stands_in_every_text_is_not_deleted(folder: Path, words: str) -> None:
    """A blank, or a letter or two, would take nearly all there is."""
    assert audit(folder, "delete-text", words, "--reason=r") == 2
    assert "(deleted)" not in [each.get("code") for each in AuditReader(folder).records()]


def test_times_that_are_none(folder: Path) -> None:
    """Too large, not a number, or no time at all: an error that says what is expected; a date is fine."""
    for wrong in (1e20, float("nan"), "soon", None, True):
        with pytest.raises(LOError, match="since: expected"):
            when(wrong)
    assert when(datetime.date(2026, 3, 2)) == "2026-03-02T00:00:00.000000Z"
    assert audit(folder, "show", "--since=soon") == 2
    with pytest.raises(LOError, match="how many"):
        AuditView(AuditReader(folder)).tail("x")  # type: ignore[arg-type]


def test_a_debuggers_polls_are_not_on_record(settings: Settings) -> None:
    """JupyterLab asks some eight times with each connection how the debugger is doing: that is no deed."""
    record = KernelRecord(settings, state=settings.workspace_path / "state")
    record.open({}, role="command")
    for number, command in enumerate(
        ("debugInfo", "initialize", "evaluate", "debugInfo", "inspectVariables")
    ):
        token = record.debug({"msg_id": f"d{number}"}, {"command": command, "arguments": {"expression": "x"}})
        record.recorder.end(token)
        record.outcome(Outcome(f"d{number}", "debug_request"))
    record.close()
    records = list(AuditReader(settings.workspace_path).records())
    assert [each["command"] for each in records if each["kind"] == "intent"] == [
        "evaluate",
        "inspectVariables",
    ]
    assert len([each for each in records if each["kind"] == "outcome"]) == 2
