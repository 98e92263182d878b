"""The record where a write only half succeeds, or the process is killed in the middle of one."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lo_kernel.kernel.audit.erasing import delete_texts, finish_deleting, pack
from lo_kernel.kernel.audit.files import DELETING
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


def killed_while_deleting(workspace: Path, at: int) -> None:
    """A process that deletes texts, and is killed with the ``at``-th thing that it does to a file."""
    code = f"""
import os, signal
from pathlib import Path
from lo_kernel.kernel.audit import erasing, log as logs
from lo_kernel.kernel.audit.recorder import Recorder
workspace = Path({str(workspace)!r})
log = logs.AuditLog(workspace, state=workspace.parent / "state", rotate_bytes=3000)
log.open()
recorder = Recorder(log)
for number in range(30):
    text = f"x = {{number}} # {{'Zoe' if number % 3 else 'Kim'}}"
    recorder.end(recorder.begin("execute", {{"msg_id": f"m{{number}}"}}, {{}}, {{"code": text}}))
erasing.pack(log)
left = {at}
def counted(work):
    def step(*arguments, **options):
        global left
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return work(*arguments, **options)
    return step
for name in ("open", "write", "pwrite", "fsync", "unlink", "replace"):
    setattr(os, name, counted(getattr(os, name)))
erasing.delete_texts(log, lambda text: "Zoe" in text, "a test")
print("to its end")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode in (0, -9), done.stderr


def names_zoe(folder: Path) -> bool:
    """Whether a text on record names her still."""
    return any("Zoe" in str(each.get("code")) for each in AuditReader(folder).records())


@pytest.mark.parametrize("at", [0, 2, 3, 5, 8, 13, 18, 22, 24, 25])
def test_killed_while_texts_are_deleted(workspace: Path, at: int) -> None:
    """The chain is whole at once, and opening the record finishes it; so does deleting again."""
    killed_while_deleting(workspace, at)
    log = opened(workspace)
    for after in ("kill", "finishing", "again"):
        if after == "finishing":
            finish_deleting(log)
        elif after == "again":
            delete_texts(log, lambda text: "Zoe" in text, "a test")
        verdict = verify(workspace, state=log.state)
        assert verdict.ok, f"after {after}: {verdict}"
    assert not names_zoe(workspace)
    assert not [path.name for path in log.folder.iterdir() if path.suffix == ".tmp"]
    assert not (log.folder / DELETING).exists()
    log.close()


def test_a_check_beside_deletions_finds_nothing(workspace: Path) -> None:
    """While another process writes, compresses and deletes texts, the record is whole at every look."""
    code = f"""
import time
from pathlib import Path
from lo_kernel.kernel.audit import erasing, log as logs
from lo_kernel.kernel.audit.recorder import Recorder
workspace = Path({str(workspace)!r})
log = logs.AuditLog(workspace, state=workspace.parent / "state", rotate_bytes=20_000)
log.open()
recorder, end, number = Recorder(log), time.monotonic() + 1, 0
while time.monotonic() < end:
    number += 1
    text = f"x = {{number}} # kid{{number % 20}}."
    recorder.end(recorder.begin("execute", {{"msg_id": f"m{{number}}"}}, {{}}, {{"code": text}}))
    if number % 60 == 0:
        erasing.pack(log)
    if number % 97 == 0:
        erasing.delete_texts(log, lambda text: f"kid{{number % 20}}." in text, "a test")
    if number % 20 == 0:
        time.sleep(0.002)
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    looks = 0
    while process.poll() is None:
        verdict = verify(workspace, state=workspace.parent / "state")
        assert verdict.ok, verdict
        looks += 1
    assert process.returncode == 0
    assert looks > 5


def many_files(workspace: Path) -> AuditLog:
    """A record of several files, all but the last one compressed."""
    log = opened(workspace, rotate_bytes=2000)
    recorder = Recorder(log)
    for number in range(20):
        cell(recorder, number, f"x = {number} # {'Zoe' if number % 3 else 'Kim'}")
    pack(log)
    return log


def test_others_write_while_texts_are_searched(workspace: Path) -> None:
    """Years of texts take long to read: nobody waits for it, and nothing of theirs is lost."""
    log, other = many_files(workspace), opened(workspace)
    newest = sorted(log.folder.glob("text-*"))[-1].read_text()
    written = 0

    def wanted(text: str) -> bool:
        nonlocal written
        if text not in newest:
            other.append("note", {"beside": text[:5]})  # raises where the record is held
            written += 1
        return "Zoe" in text

    assert delete_texts(log, wanted, "a test") == 13
    assert written > 5
    assert not names_zoe(workspace)
    assert verify(workspace, state=log.state).ok
    log.close()
    other.close()


def test_a_damaged_text_file_does_not_keep_the_others(workspace: Path) -> None:
    """What can be read is deleted; of the rest an erasure tells, and does not fail for ever."""
    log = many_files(workspace)
    damaged = sorted(log.folder.glob("text-*.zst"))[1]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 0xFF
    damaged.write_bytes(data)
    with pytest.raises(ValueError, match="decompressed"):
        delete_texts(log, lambda text: "Zoe" in text, "a test")
    told: list[BaseException] = []
    recorder = Recorder(log, on_error=told.append)
    assert recorder.forget("tc-zoe", lambda text: "Zoe" in text) > 5
    assert [damaged.name in str(error) for error in told] == [True]
    damaged.unlink()
    assert not names_zoe(workspace)
    log.close()
