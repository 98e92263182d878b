"""Settings that can't be used: said in a line, with exit code 2, and nothing is left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import StartKernel

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


def left(root: Path) -> list[str]:
    """Files below a folder."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--roster", "/nonexistent.csv"],
        ["--host", "192.0.2.1"],
        ["--app", "no_such_module:make"],
        ["--app", "json:nothing"],
    ],
)
def test_a_server_that_cannot_start_leaves_nothing(
    arguments: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    """No workspace, no record, no kernel file, and exit code 2."""
    home = tmp_path / "home"
    home.mkdir()
    env = environment | {"HOME": str(home), "LO_KERNEL_WORKSPACE": str(home / "workspace")}
    done = run("serve", *arguments, env=env)
    assert done.returncode == 2, done.stderr
    assert "expected" in done.stderr
    assert not (home / "workspace").exists()
    assert not left(home)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--env", "novalue"], "NAME=VALUE"),
        (["--app", "nope"], "package.module:factory"),
        (["--workspace", "a/b"], "workspace: expected"),
        (["--name", "a b"], "a kernelspec's name"),
        (["--env", "LO_KERNEL_PORT=x"], "LO_KERNEL_PORT: expected int"),
    ],
)
@pytest.mark.parametrize("door", ["command", "script"])
def test_install_with_a_wrong_option_ends_with_2(
    arguments: list[str], what: str, door: str, environment: dict[str, str], tmp_path: Path
) -> None:
    """By the command and by the script: what was expected, and no kernel file."""
    where = ["--prefix", str(tmp_path / "prefix"), *arguments]
    if door == "command":
        done = run("install", *where, env=environment)
    else:
        script = Path(__file__).parents[1] / "install_kernelspec.py"
        done = subprocess.run(
            [sys.executable, str(script), *where],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert what in done.stderr
    assert not (tmp_path / "prefix").exists()


def test_install_warns_of_a_variable_that_is_no_setting(environment: dict[str, str], tmp_path: Path) -> None:
    """It is written, since anybody may put variables there, with the nearest setting named."""
    where = ["--prefix", str(tmp_path), "--env", "LO_KERNEL_PROT=5", "--env", "OTHER=1"]
    done = run("install", *where, env=environment)
    assert done.returncode == 0
    assert done.stderr == "lo-kernel install: LO_KERNEL_PROT is no setting: did you mean LO_KERNEL_PORT?\n"
    assert done.stdout.startswith("wrote ")


def test_a_misspelt_variable_is_named(environment: dict[str, str]) -> None:
    """On stderr, by what a person types."""
    done = run("serve", "--host", "192.0.2.1", env=environment | {"LO_KERNEL_WORKSPAC": "x"})
    assert "LO_KERNEL_WORKSPAC is no setting: did you mean LO_KERNEL_WORKSPACE?" in done.stderr


def test_a_kernel_names_misspelt_variables_and_traits(start_kernel: StartKernel, tmp_path: Path) -> None:
    """Under the first cell and in `lo.errors`: nobody reads a kernel's log."""
    config = tmp_path / "ipython_kernel_config.py"
    config.write_text("c.LOKernel.prt = 5\nc.LOKernel.port = 0\n")
    kernel = start_kernel(env={"LO_KERNEL_LOPO": "thread"}, arguments=[f"--config={config}"])
    said = kernel.execute("1").stderr
    for line in (
        "LO_KERNEL_LOPO is no setting: did you mean LO_KERNEL_LOOP?",
        "LOKernel.prt is no setting: did you mean port?",
    ):
        assert line in said
        assert line in kernel.execute("print(lo.errors)").text


@pytest.mark.parametrize(
    ("option", "what"),
    [
        ("--LOKernel.prt=1", "did you mean port?"),
        ("--LOKernel.port=abc", "expected int"),
        ("--LOKernel.loop=foo", "expected 'kernel' or 'thread'"),
    ],
)
@pytest.mark.parametrize("mode", ["--lokernel", "--loconsole"])
def test_a_wrong_trait_that_a_person_types_starts_nothing(
    mode: str, option: str, what: str, environment: dict[str, str], workspace: Path
) -> None:
    """Exit code 2, and what exists."""
    done = run(mode, "--", option, env=environment)
    assert done.returncode == 2
    assert what in done.stderr
    assert not workspace.exists()
