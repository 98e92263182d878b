"""ipykernel's own tests, with this kernel in the place of the plain one: it may fail nowhere else.

    python tests/ipykernel_suite.py [--keep FOLDER]        (make test-ipykernel installs what it needs)

Gets the source of the ipykernel that is installed from the package index, runs its tests twice, as they are
and with a ``python3`` kernel file that starts this kernel, and compares test by test. A test that fails here
and not there is run twice more, alone, before it counts: some of these tests are unsteady. Exit code 1 where
one is left.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

FAILED = ("failed", "error")


def main(argv: Sequence[str] | None = None) -> int:
    """Run both, and print what differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", metavar="FOLDER", help="work there, and leave it")
    keep = parser.parse_args(argv).keep
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(keep or temporary)
        suite = source_of(version("ipykernel"), folder)
        plain = run(suite, folder / "plain")
        ours = run(suite, folder / "ours", kernel=spec(folder / "ours"))
        worse = sorted(name for name, how in ours.items() if how in FAILED and plain.get(name) not in FAILED)
        worse = [name for name in worse if still_fails(suite, folder / "again", name)]
    for title, results in (("plain", plain), ("ours", ours)):
        counts = {how: list(results.values()).count(how) for how in ("passed", "skipped", *FAILED)}
        print(f"{title:6} " + ", ".join(f"{count} {how}" for how, count in counts.items()))
    missing = sorted(set(plain) - set(ours))
    for name in (*worse, *missing):
        print(f"only here: {name}")
    print(
        f"ipykernel {version('ipykernel')}: {len(worse) + len(missing)} fail here that a plain kernel passes"
    )
    return 1 if worse or missing else 0


def source_of(release: str, folder: Path) -> Path:
    """Download and unpack the source of one release."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ("--no-deps", "--no-binary", "ipykernel", "--quiet", "--disable-pip-version-check")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        *options,
        "--dest",
        str(folder),
        f"ipykernel=={release}",
    ]
    subprocess.run(command, check=True)
    with tarfile.open(folder / f"ipykernel-{release}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / f"ipykernel-{release}"


def spec(folder: Path) -> Path:
    """A Jupyter data folder in which ``python3`` is this kernel."""
    kernel = folder / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True, exist_ok=True)
    (kernel / "kernel.json").write_text(
        json.dumps(
            {
                "argv": [sys.executable, "-m", "lo_kernel", "-f", "{connection_file}"],
                "display_name": "Learning Observer as python3",
                "language": "python",
                "metadata": {"debugger": True},
            }
        )
    )
    return folder / "jupyter"


def run(suite: Path, folder: Path, *, kernel: Path | None = None, only: str = "") -> dict[str, str]:
    """Run the tests; how each ended, by its name."""
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LO_KERNEL_")}
    environment |= {
        "LO_KERNEL_WORKSPACE": str(folder.resolve() / "workspace"),
        "LO_KERNEL_PORT": "0",
        "IPYTHONDIR": str(folder.resolve() / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder.resolve() / "runtime"),
        "JUPYTER_DATA_DIR": str(folder.resolve() / "data"),
    }
    if kernel is not None:
        environment["JUPYTER_PATH"] = str(kernel.resolve())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=60"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]  # pytest-asyncio warns without it
    subprocess.run(
        [*command, f"--junit-xml={report.resolve()}", *([only] if only else [])],
        cwd=suite,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=(folder / "output.txt").open("a"),
        stderr=subprocess.STDOUT,
        check=False,
    )
    return dict(map(_outcome, ElementTree.parse(report).iter("testcase")))


def still_fails(suite: Path, folder: Path, name: str) -> bool:
    """Whether a test fails with this kernel in two more tries, each in a process of its own."""
    module, _, test = name.partition("::")
    only = f"{module.replace('.', '/')}.py::{test}"
    kernel = spec(folder)
    return all(set(FAILED) & set(run(suite, folder, kernel=kernel, only=only).values()) for _ in range(2))


def _outcome(case: ElementTree.Element) -> tuple[str, str]:
    name = f"{case.get('classname')}::{case.get('name')}"
    for tag, how in (("failure", "failed"), ("error", "error"), ("skipped", "skipped")):
        if case.find(tag) is not None:
            return name, how
    return name, "passed"


if __name__ == "__main__":
    sys.exit(main())
