"""What erasing a learner takes along, and what it must leave: namesakes, others' values, other processes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apps import running_app
from page_parts import send

from lo_kernel import cli
from lo_kernel.app.erasing import erase
from lo_kernel.bridge import LoopBridge
from lo_kernel.engine.archive import Archive
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.learners import mentions
from lo_kernel.errors import LOError
from lo_kernel.kernel.audit.log import AuditLog
from lo_kernel.kernel.audit.reading import AuditReader
from lo_kernel.kernel.audit.recorder import Recorder
from lo_kernel.kernel.audit.requests import KernelRecord
from lo_kernel.kernel.audit.verify import verify
from lo_kernel.kernel.monitor import Outcome
from lo_kernel.notebook.persons import PersonVerbs, export_student
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

KID = "tc-testcase-kid-1"


@pytest.fixture
def log(workspace: Path) -> Any:
    """An open record."""
    made = AuditLog(workspace, state=workspace.parent / "state")
    made.open()
    yield made
    made.close()


def cells(recorder: Recorder, *codes: str) -> None:
    """Cells with this code."""
    for number, code in enumerate(codes):
        recorder.end(recorder.begin("execute", {"msg_id": f"m{number}"}, {}, {"code": code}))


@pytest.mark.parametrize(
    "text", [KID, f"'{KID}'", f"({KID}).", f"{KID}, {KID}0", f'{{"{KID}":1}}', f"STUDENT:{KID}"]
)
def test_an_id_is_found_wherever_it_stands_whole(text: str) -> None:
    """In a sentence, a list, a key, JSON."""
    assert mentions([], ids=[KID])(text)


@pytest.mark.parametrize("more", ["0", "-b", ".b", "%2Fb", "+b", "@school.org", "~b", "_b", "--b"])
def test_a_longer_id_is_somebody_else(more: str) -> None:
    """An id ends where a character follows that can't be in one."""
    assert not mentions([], ids=[KID])(f"of {KID}{more}, only")


@pytest.mark.parametrize("before", ["x", "my-", "ls-ls.", "a%"])
def test_the_end_of_another_id_is_somebody_else(before: str) -> None:
    """And it begins where none goes before."""
    assert not mentions([], ids=[KID])(f"of {before}{KID}")


def test_namesakes_texts_stay(log: AuditLog) -> None:
    """Erasing kid-1 leaves what names kid-10, kid-1-b and KID-1 only."""
    recorder = Recorder(log)
    others = [f"a = '{KID}0'", f"b = '{KID}-b'", f"c = '{KID.upper()}'"]
    cells(recorder, *others, f"d = '{KID}'")
    assert recorder.forget(KID) == 1
    codes = [each["code"] for each in AuditReader(log.workspace).records() if each["kind"] == "intent"]
    assert codes == [*others, "(deleted)"]
    assert verify(log.workspace, state=log.state).ok


def rows_of(log: AuditLog) -> list[dict[str, str]]:
    """The table of aliases."""
    return [json.loads(line) for line in (log.folder / "aliases.jsonl").read_text().splitlines()]


def test_who_still_holds_the_learner_does_not_bring_them_back(log: AuditLog) -> None:
    """A process that follows reads its own copy after the erasure: the id is not written down again."""
    other = AuditLog(log.workspace, state=log.state)
    other.open()
    owner, follower = Recorder(log), Recorder(other)  # the second has read nobody yet
    owner.record("query", "q", [KID, "tc-ben"])
    owner.forget(KID)
    follower.record("query", "q", [KID, "tc-ben"])
    follower.record("query", "q", [KID, "tc-ben", "tc-cleo"])
    assert [row.get("learner") for row in rows_of(log)] == ["tc-ben", None]
    assert KID.encode() not in b"".join(path.read_bytes() for path in log.folder.iterdir())
    reads = [each for each in AuditReader(log.workspace).events() if each["kind"] == "read"]
    assert [each["learners"] for each in reads] == [2, 2, 3]
    other.close()
    again = AuditLog(log.workspace, state=log.state)  # who starts now holds what is in the archive
    again.open()
    Recorder(again).record("query", "q", ["tc-cleo"])
    assert [row.get("learner") for row in rows_of(log)] == ["tc-ben", None, "tc-cleo"]
    assert verify(log.workspace, state=log.state).ok
    again.close()


async def test_who_is_in_the_archive_is_named_all_the_same(log: AuditLog) -> None:
    """After an erasure elsewhere, a learner of whom there are events gets an alias as before."""
    archive = Archive(log.workspace, ErrorLog())
    archive.open(writable=True)
    identity = identify({"user_id": "ben"})
    assert identity is not None
    archive.append(Sender(identity, "my.source"), b'{"event":"x"}', 1000.0)
    await archive.flush()
    archive.close()
    other = AuditLog(log.workspace, state=log.state)
    other.open()
    follower = Recorder(other)
    Recorder(log).forget(KID)
    follower.record("query", "q", [KID, "tc-testcase-ben"])
    assert [row.get("learner") for row in rows_of(log)] == [None, "tc-testcase-ben"]
    other.close()


@pytest.mark.parametrize("change", ["exchanged", "unsigned", "put in"])
def test_aliases_cannot_be_changed_unseen(log: AuditLog, change: str) -> None:
    """Two learners exchanged, a line without its signature, one put in: the check names the line."""
    Recorder(log).record("query", "q", ["tc-ada", "tc-ben"])
    assert verify(log.workspace, state=log.state).ok
    first, second = rows_of(log)
    if change == "exchanged":
        first["learner"], second["learner"] = second["learner"], first["learner"]
    elif change == "unsigned":
        del first["signature"]
    else:
        second["alias"] = first["alias"]
    (log.folder / "aliases.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    verdict = verify(log.workspace, state=log.state)
    assert "aliases.jsonl, line" in str(verdict)
    assert not verdict.ok


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"text": f"rows:\n{KID} 5"}),
        json.dumps({"text": json.dumps({"a": f"x\n{KID}\t"})}),
        json.dumps({"traceback": [f"\x1b[31m{KID}\x1b[0m"]}),
        f"print('a\\n{KID}')",
        f"C:\\new\\{KID}",
    ],
)
def test_an_id_is_found_as_it_is_written(text: str) -> None:
    """After a line break in JSON or code, in colour, in a path."""
    assert mentions([], ids=[KID])(text)


def test_outputs_that_come_late_do_not_name_the_erased(settings: Settings) -> None:
    """What the erasing cell and those before it put out comes to the record after them, without the id."""
    record = KernelRecord(replace(settings, audit_outputs=True), state=settings.workspace_path / "state")
    record.open({}, role="command")
    recorder = record.recorder
    cells(recorder, "rows", "await lo.erase(rows[0])")
    recorder.forget(KID)
    recorder.end(recorder.begin("execute", {"msg_id": "after"}, {}, {"code": "again"}))
    said = json.dumps({"name": "stdout", "text": f"who:\n{KID}"})
    for request in ("m0", "m1", "after", "m0"):
        outcome = Outcome(request, "execute_request", contents=[("stream", said), ("stream", "{}")])
        outcome.outputs = {"stdout": [2, len(said)]}
        outcome.late = request not in recorder.pending
        record.outcome(outcome)
    record.close()
    kept = [
        (each["request"], [KID in part["content"] for part in each["contents"]])
        for each in AuditReader(settings.workspace_path).records()
        if "contents" in each
    ]
    assert kept == [("m0", [False] * 2), ("m1", [False] * 2), ("after", [True, False]), ("m0", [False] * 2)]


async def told_of(runtime: Runtime) -> None:
    """A learner with all that can be held of one, and others whose data names them."""
    await send(runtime, "kid-1", "kid-10")
    await send(runtime, "kid-10", about=[KID])
    await send(runtime, "kid-10", about=[f"{KID}0"])
    identity = identify({"user_id": "kid-1"})
    assert identity is not None
    runtime.archive.reject(Sender(identity, "my.source"), b"no event", 1.0, "not_json", "a test")
    await runtime.archive.flush()
    runtime.pipeline.plain[f"Blob,{KID},my.source,essay"] = b'"words"'
    for key, value in {
        f"notes on {KID}": 1,
        f"notes on {KID}0": 2,
        "seen": {"by": {KID: 1}},
        "inside": json.dumps({"who": [KID]}),
        "namesake": [f"{KID}0"],
    }.items():
        await runtime.registry.set(key, value)


async def test_the_report_names_what_still_names_them(settings: Settings) -> None:
    """Values of one's own by their keys, events of others by number, histories; namesakes' stay."""
    async with running_app(settings) as runtime:
        await told_of(runtime)
        runtime.errors.add("a reducer", ValueError(f"{KID}0 sent that"))
        runtime.errors.add("a reducer", KeyError(KID))
        for who in ("nobody", KID):
            runtime.errors.add("a reducer", TypeError(f"no count of {who}"))
        report = await erase(runtime, KID)
        assert report.states == 2  # the notes and the blob
        assert await runtime.store.keys(0) == ["inside", "namesake", f"notes on {KID}0", "seen"]
        told = "\n".join(report.left)
        assert [f"value {each!r}" in told for each in ("seen", "inside", "namesake")] == [True, True, False]
        assert "events that others have sent, which name them: 1 (number 3)" in told
        assert "history.sqlite" in repr(report)
        assert [entry.kind for entry in runtime.errors.of("a reducer")] == ["ValueError"]


async def test_all_that_is_held_is_all_that_an_erasure_takes(settings: Settings, tmp_path: Path) -> None:
    """Blobs, rejected frames and values of one's own, too; and which values of others name them."""
    async with running_app(settings) as runtime:
        await told_of(runtime)
        path = await export_student(runtime, KID, tmp_path / "held.json")
    held = json.loads(path.read_text())
    assert held["values"] == {f"Blob,{KID},my.source,essay": "words", f"notes on {KID}": 1}
    assert sorted(held["named_in_values"]) == ["inside", "seen"]
    assert [each["text"] for each in held["rejected"]] == ["no event"]
    assert len(held["events"]) == 1
    assert "that others have sent" in str(held["not_here"])


async def test_where_to_is_checked_at_once(settings: Settings, tmp_path: Path) -> None:
    """A folder that isn't there, or is one, is an error of the call, and not of the job it starts."""
    async with running_app(settings) as runtime:
        await told_of(runtime)
        verbs = PersonVerbs(runtime, LoopBridge(asyncio.get_running_loop()))
        for wrong in (tmp_path / "missing" / "x.json", tmp_path):
            with pytest.raises(LOError, match=str(wrong.parent)):
                verbs.export_student(KID, wrong)


@pytest.mark.parametrize("command", ["erase", "export-student"])
def test_a_mistyped_workspace_is_not_made(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and nothing there."""
    yes = ["--yes"] if command == "erase" else []
    with pytest.raises(SystemExit) as over:
        cli.main([command, KID, *yes, "--workspace", str(tmp_path / "typo")])
    assert over.value.code == 2
    assert "there is no workspace" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_an_export_to_nowhere_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`lo-kernel export-student --output` into a folder that is missing says so, without a traceback."""
    place = tmp_path / "missing" / "x.json"
    assert cli.main(["export-student", KID, "--output", str(place), "--workspace", str(tmp_path)]) == 1
    assert "is not there" in capsys.readouterr().err
