"""Which names a package can have, and which texts an export takes for somebody's name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from apps import running_app
from field_parts import add_metadata, on_path
from page_parts import send

from lo_kernel.commands.new import make_module
from lo_kernel.errors import ExportError
from lo_kernel.notebook.export.plan import check_name
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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("json", "the package's name: 'json' is a module of Python's own or of many others; choose another"),
        ("aiohttp", "the package's name: 'aiohttp' is a package that is installed here; choose another name"),
        ("lo_kernel", "'lo_kernel' is a package that is installed here"),
        (None, "such as 'my_module', got None"),
        ("My-Module", "such as 'my_module', got 'My-Module'"),
    ],
)
def test_a_name_that_a_package_cannot_have_is_refused(name: object, said: str) -> None:
    """Installed, it would be the other one that is imported."""
    with pytest.raises(ExportError) as error:
        check_name(name)
    assert said in str(error.value)


def test_an_export_that_is_installed_can_be_exported_again(tmp_path: Path) -> None:
    """A module of this name that is installed already is an earlier version of it."""
    packages = tmp_path / "site-packages"
    folder = make_module(packages, "made_here").rename(tmp_path / "made")
    (folder / "made_here").rename(packages / "made_here")
    with on_path(packages):
        with pytest.raises(ExportError, match="is a package that is installed here"):
            check_name("made_here")
        add_metadata(packages, "made_here", version="0.1.0")
        check_name("made_here")
