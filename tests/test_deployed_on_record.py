"""`lo.kvs` beside the deployed Learning Observer: on record, under aliases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployed_stand_in import write_stand_in
from field_parts import on_path

from lo_kernel.bridge import LoopBridge
from lo_kernel.engine.keys import state_key
from lo_kernel.kernel.audit.log import AuditLog
from lo_kernel.kernel.audit.reading import AuditReader
from lo_kernel.kernel.audit.recorder import Recorder
from lo_kernel.upstream.observer import Store

ADA = "tc-testcase-ada"
KEY = state_key("Internal", "my_module.count", {"STUDENT": ADA})


@pytest.fixture
def recorder(workspace: Path, tmp_path: Path) -> Iterator[Recorder]:
    """A record."""
    log = AuditLog(workspace, state=tmp_path / "state")
    log.open()
    yield Recorder(log)
    log.close()


async def test_a_learner_who_is_forgotten_stands_nowhere(recorder: Recorder, tmp_path: Path) -> None:
    """Reading, listing and setting are on record by reducer; with the alias goes what says whose it was."""
    write_stand_in(tmp_path / "site")
    with on_path(tmp_path / "site"):
        store = Store(LoopBridge(asyncio.get_running_loop()), recorder)
        await store.set(KEY, {"count": 1})
        assert await store[KEY] == {"count": 1}
        assert await store.keys("Internal") == [KEY]
    events = [
        each for each in AuditReader(recorder.log.workspace).events() if each["kind"] in ("act", "read")
    ]
    assert [(each["what"], each["reads"], each["learners"]) for each in events] == [
        ("value set", [], 1),
        ("my_module.count by STUDENT", ["store: my_module.count by STUDENT"], 1),
        ("the list of keys", ["store: the list of keys"], 1),
    ]
    recorder.forget(ADA)
    held = [path for path in recorder.log.folder.iterdir() if ADA.encode() in path.read_bytes()]
    assert held == []
