"""Which texts an export takes for somebody's name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from apps import running_app
from page_parts import send

from lo_kernel.notebook.export.session import SessionExport
from lo_kernel.settings import Settings

ROSTER = """user_id,name,role,email
tc-testcase-ann,Ann Lee,student,ann@school.example
tc-testcase-bo,Ann Lee,student,
tc-testcase-cy,Cy Young,student,
"""


async def test_what_several_have_is_no_name(settings: Settings, tmp_path: Path) -> None:
    """A role stays a word of the events; names are names, also of two, of everyone seen or in the roster."""
    path = tmp_path / "roster.csv"
    path.write_text(ROSTER, encoding="utf-8")
    async with running_app(replace(settings, roster=str(path))) as runtime:
        await send(runtime, "ann", "dora")
        export = SessionExport.__new__(SessionExport)
        export.runtime = runtime
        assert await export._names() == {
            "tc-testcase-ann": ["testcase-ann", "ann@school.example", "Ann Lee"],
            "tc-testcase-dora": ["testcase-dora"],
            "tc-testcase-bo": ["Ann Lee"],
            "tc-testcase-cy": ["Cy Young"],
        }
