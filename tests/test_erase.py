"""What erasing a learner takes along, and what it must leave: namesakes, others' values, other processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lo_kernel.engine.learners import mentions
from lo_kernel.kernel.audit.log import AuditLog
from lo_kernel.kernel.audit.reading import AuditReader
from lo_kernel.kernel.audit.recorder import Recorder
from lo_kernel.kernel.audit.verify import verify

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
