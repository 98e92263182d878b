"""A kernelspec's name belongs to who has it, in whichever folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lo_kernel.errors import KernelSpecError
from lo_kernel.kernel import kernelspec


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The user's Jupyter folder, and a further one in which Jupyter looks; both empty."""
    user, more = tmp_path / "user", tmp_path / "more"
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(user))
    monkeypatch.setenv("JUPYTER_PATH", str(more))
    return user, more


@pytest.mark.parametrize("name", ["python3", "Python3"])
def test_nobody_becomes_python3(folders: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    """Jupyter's own kernel is never replaced, wherever its file lies, and where it has none."""
    for where in ({"user": True}, {"prefix": tmp_path / "prefix"}):
        with pytest.raises(KernelSpecError, match="another kernel's"):
            kernelspec.install(name=name, **where)
    assert not folders[0].exists()
    assert not (tmp_path / "prefix").exists()


def test_a_kernel_in_another_folder_is_not_hidden(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Jupyter would show ours in the place of the other; outside of where it looks, nothing is hidden."""
    user, more = folders
    other = more / "kernels" / "statistics"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(json.dumps({"argv": ["R", "{connection_file}"], "display_name": "R"}))
    with pytest.raises(KernelSpecError, match=f"{other} is another kernel's"):
        kernelspec.install(user=True, name="Statistics")
    assert not user.exists()
    assert kernelspec.install(prefix=tmp_path / "prefix", name="statistics").path.is_dir()
    assert kernelspec.install(user=True, name="mine").path.is_dir()


def test_ours_in_another_folder_is_no_hindrance(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """One of ours may hide one of ours: `status` tells."""
    kernelspec.install(user=True, name="mine")
    assert kernelspec.install(user=True, name="mine", loop="thread").env == {"LO_KERNEL_LOOP": "thread"}
