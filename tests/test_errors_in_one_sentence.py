"""What `lo.errors` shows of a mistake that says itself what to do: no lines of the package."""

from __future__ import annotations

from typing import Any

import pytest
from ingest_parts import running
from test_errors_of_reducers import came

from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.reducers import kvs_pipeline
from lo_kernel.errors import StateError, StoreError
from lo_kernel.settings import Settings


@pytest.mark.parametrize(
    ("result", "said"),
    [({"n": 1}, "Write: return state, state"), (({"n": {1}}, None), "Write list(...)")],
)
async def test_an_answer_that_cannot_be_is_one_sentence(settings: Settings, result: Any, said: str) -> None:
    """Nothing in a reducer's code raised: lines of the package would be all there is to see."""

    @kvs_pipeline({"n": 0}, module_override="tests")
    def wrong(event: Any, state: Any) -> Any:
        return result

    async with running(settings) as runtime:
        await runtime.add_reducer("wrong", wrong, module="tests").ready()
        await came(runtime, 1)
        (entry,) = runtime.errors.of("reducer 'wrong'")
        assert entry.message.endswith(said)
        assert not entry.traceback
        assert "Traceback" not in repr(entry)


def test_what_somebody_wrote_is_shown_and_so_is_a_cause() -> None:
    """An error of ours that a person's line raised, or that another one caused, is shown with its lines."""
    errors = ErrorLog()
    try:
        raise StateError("mine")
    except StateError as error:
        errors.add("here", error)
    assert "test_errors_in_one_sentence.py" in errors.of("here")[0].traceback
    try:
        try:
            raise OSError("disk")
        except OSError as cause:
            raise StoreError("away") from cause
    except StoreError as error:
        errors.add("there", error)
    assert "OSError: disk" in errors.of("there")[0].traceback
