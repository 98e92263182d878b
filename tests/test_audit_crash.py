"""The record where a write only half succeeds, or the process is killed in the middle of one."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lo_kernel.kernel.audit.log import AuditLog
from lo_kernel.kernel.audit.reading import AuditReader
from lo_kernel.kernel.audit.recorder import Recorder
from lo_kernel.kernel.audit.verify import verify


def opened(workspace: Path, rotate_bytes: int = 8 << 20) -> AuditLog:
    """A record whose outside is beside its workspace."""
    made = AuditLog(workspace, state=workspace.parent / "state", rotate_bytes=rotate_bytes)
    made.open()
    return made


def cell(recorder: Recorder, number: int, code: str = "") -> None:
    """A cell."""
    token = recorder.begin("execute", {"msg_id": f"m{number}"}, {}, {"code": code or f"x = {number}"})
    recorder.end(token)


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process grows beyond this: as on a full disk, the first part of a write is taken."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ["log", "text"])
def test_a_full_disk_leaves_the_chain_whole(workspace: Path, kind: str) -> None:
    """What was half written goes; what could not be written is counted, and said once it can be."""
    log = opened(workspace)
    told: list[BaseException] = []
    recorder = Recorder(log, on_error=told.append)
    for number in range(3):
        cell(recorder, number)
    largest = max(path.stat().st_size for path in log.folder.glob("log-*"))
    with files_end_at(largest + 100 if kind == "log" else 1500):
        for number in range(3, 6):
            cell(recorder, number, "" if kind == "log" else "#" * 3000)
    for number in range(6, 9):
        cell(recorder, number)
    gaps = [each for each in AuditReader(workspace).records() if each["kind"] == "gap"]
    assert {each["reason"] for each in gaps} == {"not written"}
    assert sum(each["records"] for each in gaps) == 3
    assert len(told) == len(gaps)
    for _ in range(2):
        verdict = verify(workspace, state=log.state)
        assert verdict.ok, verdict
        log.close()
        log.open()
    log.close()


def test_a_file_that_was_only_begun_is_no_loss(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended, or out of disk, between a new file and its first record: the chain goes on in it."""
    log = opened(workspace, rotate_bytes=2000)
    recorder = Recorder(log)
    write = log._write
    stopped = False

    def stop(kind: str, *rest: object) -> int:
        nonlocal stopped
        if kind == "file" and not stopped:
            stopped = True
            raise OSError(28, "No space left on device")
        return write(kind, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(log, "_write", stop)
    for number in range(20):
        cell(recorder, number)
    assert stopped
    verdict = verify(workspace, state=log.state)
    assert verdict.ok, verdict
    log.close()
    last = sorted(log.folder.glob("log-*"))[-1]
    records = [each["kind"] for each in AuditReader(workspace).records()]
    assert records.count("gap") == 1
    assert last.read_bytes().startswith(b'{"at"')
    # and the same with another process, which finds the empty file
    number = verdict.records + 1
    (log.folder / f"log-{number:012d}.jsonl").touch()
    again = opened(workspace)
    cell(Recorder(again), 99)
    verdict = verify(workspace, state=log.state)
    assert verdict.ok, verdict
    again.close()


@pytest.mark.parametrize("torn", ["log", "text", "head"])
def test_others_go_on_after_a_process_that_was_killed_while_writing(workspace: Path, torn: str) -> None:
    """Half a line, half a text, a line without its head: the next process makes it whole."""
    one, two = opened(workspace), opened(workspace)
    cell(Recorder(one), 1)
    cell(Recorder(two), 2)
    if torn == "head":
        head = (one.folder / "head").read_bytes()
        cell(Recorder(one), 3)
        (one.folder / "head").write_bytes(head)
    else:
        (path,) = one.folder.glob(f"{torn}-*.jsonl")
        with path.open("ab") as file:
            file.write(b'{"at":"2026')
        if torn == "text":  # it was about to write a record, too
            two.close()
            two.open()
    cell(Recorder(two), 4)
    verdict = verify(workspace, state=one.state)
    assert verdict.ok, verdict
    one.close()
    two.close()
