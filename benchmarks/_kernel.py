"""A kernel process and a client of it, for the benchmarks that talk to one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

__all__ = ["COMMANDS", "Kernel", "running_kernel"]

COMMANDS = {"python3": ("-m", "ipykernel_launcher"), "learning_observer": ("-m", "lo_kernel")}


@dataclass(frozen=True)
class Kernel:
    """A running kernel: its process, and a client whose channels are open."""

    pid: int
    client: BlockingKernelClient

    def run(self, code: str, timeout: float = 60.0) -> str:
        """Run a cell; what it printed. A cell that fails ends the benchmark."""
        printed: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
                printed.append(message["content"]["text"])

        reply = self.client.execute_interactive(code, timeout=timeout, output_hook=hear)
        if reply["content"]["status"] != "ok":
            raise SystemExit("\n".join(reply["content"].get("traceback", ["the cell was not run"])))
        return "".join(printed)

    def start(self, code: str) -> str:
        """Start a cell and wait until it says ``on``; its message id, for `finish`."""
        message = self.client.execute(code)
        while True:
            heard = self.client.get_iopub_msg(timeout=60)
            if heard["msg_type"] == "error":
                raise SystemExit("\n".join(heard["content"]["traceback"]))
            if heard["msg_type"] == "stream" and heard["content"]["text"].startswith("on"):
                return str(message)

    def finish(self, message: str, timeout: float = 120.0) -> None:
        """Wait until a cell that `start` began is done."""
        while self.client.get_shell_msg(timeout=timeout)["parent_header"].get("msg_id") != message:
            pass


@contextlib.contextmanager
def running_kernel(
    folder: Path, name: str = "learning_observer", env: Mapping[str, str] | None = None
) -> Iterator[Kernel]:
    """Start a kernel in ``folder``, with everything of its own there, and end it."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LO_KERNEL_")}
    environment |= {
        "LO_KERNEL_WORKSPACE": str(folder / "workspace"),
        "LO_KERNEL_PORT": "0",
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }
    file, _ = write_connection_file(str(folder / f"{name}.json"))
    process = subprocess.Popen(
        [sys.executable, *COMMANDS[name], "-f", file],
        env=environment | dict(env or {}),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    client = BlockingKernelClient(connection_file=file)
    try:
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        yield Kernel(process.pid, client)
        client.shutdown()
        process.wait(timeout=20)
    finally:
        process.kill()
        process.wait()
        client.stop_channels()
        client.context.destroy(linger=0)
