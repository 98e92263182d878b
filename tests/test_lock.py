"""A lock on a file: who has it has it alone, whatever becomes of the file, and no longer than it lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lo_kernel.lock import FileLock

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="elsewhere nothing forks, nor goes while it is open"
)

_FORKS = """
import os, sys, time
from pathlib import Path
from lo_kernel.lock import FileLock

lock = FileLock(Path(sys.argv[1]))
assert lock.acquire()
child = os.fork()
if child == 0:
    print("ready", flush=True)
    time.sleep(60)
time.sleep(60)
"""


def test_a_forked_child_does_not_keep_it(tmp_path: Path) -> None:
    """While the owner lives it has the lock; after its end another can, though a child of it goes on."""
    path = tmp_path / "lock"
    command = [sys.executable, "-W", "ignore", "-c", _FORKS, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        lock = FileLock(path)
        assert not lock.acquire()
        process.kill()
        process.wait(10)
        assert lock.acquire()
        lock.release()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_child_lets_go_of_nothing_that_is_its_parents(tmp_path: Path) -> None:
    """Neither by its end, nor by releasing what it believes to hold."""
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(0 if not lock.in_place() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lock.in_place()
    assert not FileLock(lock.path).acquire()
    lock.release()


def test_a_removed_file_is_noticed(tmp_path: Path) -> None:
    """Who holds a lock on it can see that, and who takes it anew has the file that others find."""
    lock, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert not lock.in_place()
    assert lock.acquire()
    assert lock.in_place()
    lock.path.unlink()
    assert not lock.in_place()
    assert other.acquire()
    assert other.in_place()
    assert not lock.in_place()
    for each in (lock, other):
        each.release()


def test_a_file_that_goes_while_it_is_taken_is_not_what_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking it somebody may remove it: then the new one is taken."""
    path = tmp_path / "lock"
    opened = os.open
    times = []

    def removed(*args: object) -> int:
        file = opened(*args)  # type: ignore[arg-type]
        times.append(file)
        if len(times) == 1:
            path.unlink()
        return file

    monkeypatch.setattr(os, "open", removed)
    lock = FileLock(path)
    assert lock.acquire()
    assert len(times) == 2
    assert lock.in_place()
    assert not FileLock(path).acquire()
    lock.release()
