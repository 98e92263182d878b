"""Settings that can't be used: said in a line, with exit code 2, and nothing is left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from lo_kernel.errors import SettingsError
from lo_kernel.kernel.host import bind_first
from lo_kernel.settings import Settings


def run(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`lo-kernel` with ``arguments``, to its end."""
    command = [sys.executable, "-m", "lo_kernel", *arguments]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, check=False
    )


@pytest.mark.parametrize("app", [":", "module:", ":factory", "a:b:c", "a b:c", "1:2"])
def test_an_app_is_a_module_and_a_name(app: str) -> None:
    """`package.module:factory` has both parts."""
    with pytest.raises(SettingsError, match=r"package\.module:factory"):
        Settings(app=app)


@pytest.mark.parametrize("host", ["nope.invalid", "300.1.1.1", "192.0.2.1", "a..b"])
def test_a_host_is_this_machines(host: str) -> None:
    """A name that doesn't exist, or an address of another machine, is named."""
    with pytest.raises(SettingsError, match=f"got '{host}'"):
        bind_first(host, (0,))


@pytest.mark.parametrize("host", ["", " "])
def test_an_empty_host_is_none(host: str) -> None:
    """It doesn't mean all addresses."""
    with pytest.raises(SettingsError, match=r"such as 127\.0\.0\.1"):
        Settings.from_env({"LO_KERNEL_HOST": host})


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["--app", ":"], {}),
        (["--host", "nope.invalid"], {}),
        (["--host", "192.0.2.1"], {}),
        ([], {"LO_KERNEL_HOST": ""}),
    ],
)
def test_a_server_says_so_in_a_line(
    arguments: Sequence[str], variables: dict[str, str], environment: dict[str, str]
) -> None:
    """No traceback, and exit code 2."""
    done = run("serve", *arguments, env=environment | variables)
    assert done.returncode == 2
    assert "expected" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_trait_that_cannot_be_used_ends_a_kernel_in_order(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Exit code 1 and what was wrong, each time: no thread of ours meets the end of Python."""
    for _ in range(6):
        done = run("-f", str(tmp_path / "kernel.json"), "--LOKernel.port=abc", env=environment)
        assert done.returncode == 1, done.stderr
        assert "'port' trait" in done.stderr
