"""Every way to start it, as a person types it: real processes, their output and their exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from apps import running_app
from harness import RunningKernel, free_port
from jupyter_client.blocking.client import BlockingKernelClient
from page_parts import send
from waiting import until

import lo_kernel
from lo_kernel.settings import Settings

PACKAGE = Path(lo_kernel.__file__).parent

Started = Callable[..., "Process"]


class Process:
    """A process of ours whose stdout is read as it comes."""

    def __init__(self, arguments: list[str], **options: object) -> None:
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.output = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line

    def says(self, text: str) -> str:
        """Wait until ``text`` was printed; the line that has it."""
        until(lambda: text in self.output or self.process.poll() is not None, timeout=20, what=f"{text!r}")
        lines = [line for line in self.output.splitlines() if text in line]
        assert lines, self.output
        return lines[0]

    def end(self, number: int = signal.SIGINT) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(timeout=10)
        self._reader.join(timeout=10)
        return code

    def close(self) -> None:
        """Whatever is left, ends."""
        if self.process.poll() is None:
            self.process.terminate()  # and not a kill, which would leave what it started
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=5)
        self._reader.join(timeout=10)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def start() -> Iterator[Started]:
    """Start `python -m lo_kernel ...`; processes end with the test."""
    started: list[Process] = []

    def start_one(*arguments: str, program: tuple[str, ...] = ("-m", "lo_kernel")) -> Process:
        started.append(Process([sys.executable, *program, *arguments]))
        return started[-1]

    yield start_one
    for process in started:
        process.close()


def run(*arguments: str, program: tuple[str, ...] = ("-m", "lo_kernel")) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [sys.executable, *program, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def client_of(connection_file: str) -> BlockingKernelClient:
    """A client of a running kernel."""
    client = BlockingKernelClient(connection_file=connection_file)
    client.load_connection_file()
    client.start_channels()
    client.wait_for_ready(timeout=20)
    return client


def close(client: BlockingKernelClient) -> None:
    """Let go of a client's sockets."""
    client.stop_channels()
    client.context.destroy(linger=0)


@pytest.mark.parametrize("way", ["module", "folder"])
def test_no_option_serves_the_app(start: Started, workspace: Path, way: str) -> None:
    """Its address with a token is printed, opens the app, and Ctrl-C ends it and frees port and workspace."""
    program = ("-m", "lo_kernel") if way == "module" else (str(PACKAGE),)
    server = start(program=program)
    address = server.says("/?token=").strip()
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(address, timeout=5) as page:
        assert page.status == 200
    assert server.end() == 0
    assert not (workspace / "owner.json").exists()
    assert "Traceback" not in server.output


async def test_serving_says_once_what_is_wrong_with_the_roster(
    start: Started, workspace: Path, tmp_path: Path
) -> None:
    """A service's log has it at the start, without anybody's id: a log is not erased with its learners."""
    async with running_app(Settings(workspace=str(workspace), port=0)) as runtime:
        await send(runtime, "ann")
    roster = tmp_path / "r.csv"
    roster.write_text("user_id,name\nann,Ann Lee\n,Bo Lee\n")
    server = start("serve", "--port", "0", "--roster", str(roster))
    server.says("/admin/status says more")
    assert server.end() == 0
    said = [line for line in server.output.splitlines() if line.startswith("roster")]
    assert said == [
        "roster: r.csv, line 3: expected a learner's id under 'user_id', got none. This row is left out",
        "roster: its ids and those that were seen don't fit together; /admin/status says more",
    ]


def test_serving_ends_with_sigterm(start: Started) -> None:
    """A service manager's signal is as orderly an end as Ctrl-C."""
    server = start("serve", "--port", "0")
    server.says("/?token=")
    assert server.end(signal.SIGTERM) == 0


def test_lokernel_prints_how_to_join(start: Started) -> None:
    """`--lokernel 1` prints the connection file and the line that joins; a client joins; Ctrl-C ends it."""
    kernel = start("--lokernel", "1", "--port", "0")
    file = kernel.says("connection file: ").partition(": ")[2].strip()
    assert kernel.says("jupyter console --existing").endswith(Path(file).name)
    client = client_of(file)
    reply = client.execute_interactive("lo.port", timeout=10, output_hook=lambda message: None)
    assert reply["content"]["status"] == "ok"
    close(client)
    assert kernel.end() == 0
    assert not Path(file).exists()


@pytest.mark.parametrize("arguments", [("--lokernel",), ("--lokernel=none",), ("--lokernel", "any")])
def test_lokernel_takes_any_value(start: Started, arguments: tuple[str, ...]) -> None:
    """With a value or without one, it is a kernel."""
    kernel = start(*arguments)
    kernel.says("jupyter console --existing")
    assert kernel.end(signal.SIGTERM) == 0


def test_a_clients_stop_button_does_not_end_a_kernel_started_by_hand(start: Started) -> None:
    """An interrupt request with nothing to interrupt is no Ctrl-C."""
    kernel = start("--lokernel")
    client = client_of(kernel.says("connection file: ").partition(": ")[2].strip())
    client.control_channel.send(client.session.msg("interrupt_request", {}))
    assert client.get_control_msg(timeout=10)["content"]["status"] == "ok"
    client.execute_interactive("1", timeout=10, output_hook=lambda message: None)
    close(client)
    assert kernel.process.poll() is None


def test_ipythons_options_come_after_dashes(start: Started, tmp_path: Path) -> None:
    """What stands after `--` is the kernel's."""
    file = tmp_path / "here.json"
    kernel = start("--lokernel", "--", f"--IPKernelApp.connection_file={file}")
    assert str(file) in kernel.says("jupyter console --existing")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--bogus"], "unknown option '--bogus'"),
        (["bogus"], "unknown command 'bogus'"),
        (["--loconsole", "--lokernel"], "contradict"),
        (["--loconsole", "-f", "x.json"], "contradict"),
        (["--port", "99999"], "expected a number from 0"),
        (["--port", "many"], "--port"),
        (["--loop", "sideways"], "kernel"),
        (["serve", "--bogus"], "unknown option '--bogus'"),
        (["status", "now"], "unknown argument 'now'"),
        (["simulate", "--students", "none"], "--students"),
        (["--port", "0", "--", "--pdb"], "--lokernel"),
    ],
)
def test_wrong_options_start_nothing(arguments: list[str], what: str, workspace: Path) -> None:
    """What was wrong and what exists, exit code 2, and no workspace was touched."""
    result = run(*arguments)
    assert result.returncode == 2
    assert what in result.stderr
    assert "--help explains" in result.stderr
    assert not workspace.exists()


@pytest.mark.parametrize(
    ("setting", "what"),
    [(["--app", "no_such:thing"], "no module 'no_such'"), (["--store", "dust"], "'sqlite'")],
)
def test_a_setting_that_only_the_app_can_judge_ends_it_too(setting: list[str], what: str) -> None:
    """An app or a store that doesn't exist: what was expected, exit code 2, and nobody answers."""
    result = run(*setting)
    assert result.returncode == 2
    assert what in result.stderr
    assert "http" not in result.stdout


def test_help_is_one_screen() -> None:
    """`--help` names every way to start it and every setting, on one screen of 24 lines and 80 columns."""
    result = run("--help")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert len(lines) < 24, "and the prompt below it"
    assert not [line for line in lines if len(line) > 80]
    for word in ("serve", "--loconsole", "--lokernel", "-f FILE", "install", "status", "simulate", "lab"):
        assert word in result.stdout
    for spec in fields(Settings):
        assert spec.name.replace("_", "-") in result.stdout


@pytest.mark.parametrize("command", ["serve", "install", "uninstall", "status", "simulate", "lab"])
def test_each_command_explains_itself(command: str) -> None:
    """`lo-kernel COMMAND --help` works for each command that the help names."""
    result = run(command, "--help")
    assert result.returncode == 0
    assert f"lo-kernel {command}" in result.stdout


def test_help_all_is_made_from_the_traits() -> None:
    """`--help-all` names the trait and the variable of each setting."""
    text = run("--help-all").stdout
    for spec in fields(Settings):
        assert f"LOKernel.{spec.name}" in text
        assert f"LO_KERNEL_{spec.name.upper()}" in text


def test_status_names_kernels_and_servers(start: Started, kernel: RunningKernel) -> None:
    """`status` tells where the app of each process answers, and forgets those that are gone."""
    os.environ["JUPYTER_RUNTIME_DIR"] = kernel.environment["JUPYTER_RUNTIME_DIR"]
    server = start()
    address = server.says("/?token=").split("?")[0].strip()
    text = run("status").stdout
    assert address in text
    assert f"{kernel.pid} " in text
    assert f"--existing {Path(kernel.manager.connection_file).name}" in text
    os.kill(kernel.pid, signal.SIGKILL)
    until(lambda: not kernel.alive)
    text = run("status").stdout
    assert address in text
    assert f"{kernel.pid} " not in text


def test_simulate_types_into_the_workspaces_app(start: Started) -> None:
    """The class finds the app by its workspace; without one, it says what to do."""
    nobody = run("simulate", "--students", "2", "--seconds", "1")
    assert nobody.returncode == 1
    assert "lo-kernel" in nobody.stderr
    start().says("/?token=")
    result = run("simulate", "--students", "3", "--seconds", "1", "--speed", "5", "--seed", "1")
    assert result.returncode == 0, result.stderr
    assert "3 learners sent" in result.stdout


def test_stand_alone_server_and_kernel_share_a_workspace(start: Started, kernel: RunningKernel) -> None:
    """Beside a kernel, a server in the same workspace says that it follows; `status` tells which is which."""
    os.environ["LO_KERNEL_WORKSPACE"] = str(kernel.workspace)
    os.environ["JUPYTER_RUNTIME_DIR"] = kernel.environment["JUPYTER_RUNTIME_DIR"]
    server = start()
    assert server.says("another process")
    lines = {line.split()[0]: line for line in run("status").stdout.splitlines() if "workspace" in line}
    assert f"{kernel.workspace} (owner)" in lines[str(kernel.pid)]
    assert f"{kernel.workspace} (follows {kernel.pid})" in lines[str(server.process.pid)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["audit"], "expected what to do: verify, show, of, export, delete-text"),
        (
            ["inject", "module", "http://127.0.0.1:1"],
            "no terminal to ask at: give the server's injected/token",
        ),
    ],
)
def test_what_is_missing_is_named(arguments: list[str], said: str) -> None:
    """Without an action, or a token and a terminal, it says in a line what to give, and ends with 2."""
    result = run(*arguments)
    assert result.returncode == 2
    assert said in result.stderr.splitlines()[0]


def test_lab_opens_the_example_with_a_class_streaming_in(start: Started, kernel: RunningKernel) -> None:
    """It prints JupyterLab's address, a class types into the workspace's app, and Ctrl-C ends all of it."""
    os.environ["LO_KERNEL_WORKSPACE"] = str(kernel.workspace)
    lab = start("lab", "--students", "3", "--no-browser", f"--ServerApp.port={free_port()}")
    address = lab.says("/lab/tree/local_reducer.ipynb?token=").split()[-1]

    def answers() -> bool:
        try:
            with urllib.request.urlopen(address, timeout=10) as page:
                return bool(page.status == 200)
        except urllib.error.URLError as error:
            if isinstance(error.reason, ConnectionRefusedError):  # it prints the address, and then listens
                return False
            raise

    until(answers, timeout=30, what="JupyterLab to answer")
    until(lambda: int(kernel.execute("print(len(lo.events))").text) > 0, timeout=20)
    students = "print(sorted({event['client']['auth']['user_id'] for event in lo.events.tail(9)}))"
    assert "-lab-0" in kernel.execute(students).text, "its ids are none of lo.simulate's"
    copy = kernel.workspace / "notebooks" / "local_reducer.ipynb"
    assert copy.read_bytes() == (PACKAGE.parent / "examples" / "local_reducer.ipynb").read_bytes()
    assert lab.end() == 0
    assert "Traceback" not in lab.output


def test_the_kernel_file_is_what_status_shows(tmp_path: Path) -> None:
    """`install --prefix` writes a kernel file, and `uninstall` takes it away."""
    written = run("install", "--prefix", str(tmp_path), "--loop", "thread")
    assert written.returncode == 0, written.stderr
    spec = tmp_path / "share" / "jupyter" / "kernels" / "learning_observer" / "kernel.json"
    assert json.loads(spec.read_text())["env"] == {"LO_KERNEL_LOOP": "thread"}
    assert run("uninstall", "--prefix", str(tmp_path)).returncode == 0
    assert not spec.exists()
    again = run("uninstall", "--prefix", str(tmp_path))
    assert again.returncode == 1
    assert "Traceback" not in again.stderr
