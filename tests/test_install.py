"""Installing for real: into new virtual environments, by pip and by the script, and away again.

The environments see this one's packages through a path file, so that nothing is downloaded: what is installed
is the package alone, built and placed by the real tools.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import RunningKernel, python

import lo_kernel

ROOT = Path(__file__).resolve().parents[1]
SHARE = Path("share", "jupyter", "kernels", "learning_observer")
FILES = {"kernel.json", "logo-svg.svg", "logo-32x32.png", "logo-64x64.png"}
QUICK = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet")


@dataclass(frozen=True)
class Environment:
    """A virtual environment: where it is, and the variables that its programs are run with."""

    path: Path
    variables: dict[str, str]

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.path / "bin" / "python")

    @property
    def spec(self) -> Path:
        """Where its kernelspec belongs."""
        return self.path / SHARE

    def pip(self, *arguments: str) -> None:
        """Run pip on it."""
        python(
            "-m", "pip", "--python", self.python, *arguments, env=self.variables, cwd=self.path, timeout=120
        )

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run its interpreter, from a folder that has nothing to do with the project."""
        done = subprocess.run(
            [self.python, *arguments],
            env=self.variables,
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def kernels(self) -> dict[str, str]:
        """What `jupyter kernelspec list` shows there: names and folders."""
        listed = json.loads(self.run("-m", "jupyter_client.kernelspecapp", "list", "--json").stdout)
        return {name: each["resource_dir"] for name, each in listed["kernelspecs"].items()}


@pytest.fixture
def new_environment(tmp_path: Path, environment: dict[str, str]) -> Callable[[str], Environment]:
    """Make a virtual environment that has our dependencies, and neither the package nor pip."""

    def make(name: str) -> Environment:
        path = tmp_path / name
        venv.create(path, symlinks=True)
        site = path / "lib" / "python{}.{}".format(*sys.version_info[:2]) / "site-packages"
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        return Environment(path, environment)

    return make


@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_pip_brings_the_kernelspec_and_takes_it_away(
    editable: bool, new_environment: Callable[[str], Environment]
) -> None:
    """`pip install .` and `-e .` alone put the spec where Jupyter lists it; `pip uninstall` removes it."""
    env = new_environment("env")
    assert "learning_observer" not in env.kernels()
    env.pip("install", *QUICK, *(["--editable"] if editable else []), str(ROOT))
    assert env.kernels()["learning_observer"] == str(env.spec)
    assert {each.name for each in env.spec.iterdir()} == FILES
    assert (env.path / "bin" / "lo-kernel").is_file()
    where = Path(env.run("-c", "import lo_kernel; print(lo_kernel.__file__)").stdout.strip())
    assert where.is_relative_to(ROOT if editable else env.path)
    env.pip("uninstall", "--yes", "--quiet", "lo-kernel")
    assert "learning_observer" not in env.kernels()
    assert not env.spec.exists()
    assert not (env.path / "bin" / "lo-kernel").exists()


@pytest.mark.parametrize("installed", [False, True], ids=["checkout", "installed"])
def test_the_script_does_the_same(installed: bool, new_environment: Callable[[str], Environment]) -> None:
    """The script works from any folder, installed or not: writes what Jupyter lists, removes it again."""
    env = new_environment("env")
    if installed:
        env.pip("install", *QUICK, str(ROOT))
        (env.spec / "kernel.json").unlink()
    script = str(ROOT / "install_kernelspec.py")
    assert str(env.spec) in env.run(script).stdout
    assert env.kernels()["learning_observer"] == str(env.spec)
    assert {each.name for each in env.spec.iterdir()} == FILES
    argv = json.loads((env.spec / "kernel.json").read_text())["argv"]
    assert argv[0] == env.python
    assert argv[1:3] == ["-m", "lo_kernel"] if installed else argv[1:2] == [str(ROOT / "lo_kernel")]
    assert "removed" in env.run(script, "--uninstall").stdout
    assert "learning_observer" not in env.kernels()


def test_the_script_writes_where_it_is_told(
    new_environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    """--user and --prefix write there, with missing parents, and leave the environment as it was."""
    env = new_environment("env")
    script = str(ROOT / "install_kernelspec.py")
    env.run(script, "--prefix", str(tmp_path / "not" / "yet"), "--name", "elsewhere")
    assert (tmp_path / "not" / "yet" / SHARE.parent / "elsewhere" / "kernel.json").is_file()
    env.run(script, "--user", "--loop", "thread", "--display-name", "LO, own thread")
    assert env.kernels()["learning_observer"].startswith(env.variables["JUPYTER_DATA_DIR"])
    assert not env.spec.exists()


def test_the_script_says_what_is_wrong(new_environment: Callable[[str], Environment]) -> None:
    """A name that can't be used ends the script with 2 and what is wrong, without a traceback."""
    done = new_environment("env").run(str(ROOT / "install_kernelspec.py"), "--name", "a b", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("install_kernelspec.py: a kernelspec's name has")
    assert done.stderr.count("\n") == 1


def test_a_moved_environment_is_found_and_mended(
    new_environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    """After a virtual environment was moved, its spec is stale, and `ensure` makes it start the new place."""
    old = new_environment("old")
    old.pip("install", *QUICK, str(ROOT))
    code = "from lo_kernel.kernel import kernelspec as k; print(k.{})"
    old.run("-c", code.format("install(env={'A': 'b'}).stale"))
    new = Environment(old.path.rename(tmp_path / "new"), old.variables)
    assert "is gone" in new.run("-c", code.format("list_specs()[0].reason")).stdout
    assert new.run("-c", code.format("ensure().action")).stdout.strip() == "refreshed"
    mended = json.loads((new.spec / "kernel.json").read_text())
    assert (mended["argv"][0], mended["env"]) == (new.python, {"A": "b"})
    assert new.run("-c", code.format("ensure().action")).stdout.strip() == "found"


def test_the_wheel_holds_all_that_an_install_copies(environment: dict[str, str], tmp_path: Path) -> None:
    """The wheel has kernel.json and logos as shared data, the logos in the package too, and the example."""
    where = str(tmp_path / "dist")
    arguments = ("--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", where, str(ROOT))
    python("-m", "pip", "wheel", *arguments, env=environment, cwd=tmp_path)
    (wheel,) = Path(where).iterdir()
    names = set(zipfile.ZipFile(wheel).namelist())
    data = f"lo_kernel-{lo_kernel.__version__}.data/data/{SHARE.as_posix()}"
    assert {f"{data}/{name}" for name in FILES} <= names
    assert {f"lo_kernel/kernel/resources/{name}" for name in FILES} <= names
    assert {"lo_kernel/py.typed", "lo_kernel/examples/local_reducer.ipynb"} <= names


def test_a_users_spec_starts_its_environment_under_any_jupyter(
    new_environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    """A spec of `install --user` starts the Python that wrote it, though this Jupyter lives in another."""
    env = new_environment("env")
    env.pip("install", *QUICK, str(ROOT))
    code = "from lo_kernel.kernel import kernelspec as k; k.install(user=True, name='lo_env')"
    env.run("-c", code)
    own = {"JUPYTER_DATA_DIR": env.variables["JUPYTER_DATA_DIR"]}
    kernel = RunningKernel(tmp_path / "kernel", name="lo_env", env=own)
    try:
        result = kernel.execute("import sys, lo_kernel; print(sys.prefix); print(lo_kernel.__file__)")
        prefix, package = result.text.split()
        assert prefix == str(env.path)
        assert Path(package).is_relative_to(env.path)
    finally:
        kernel.stop()
