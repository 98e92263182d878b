"""From the start of the process to a kernel that answers, with the app answering: ours beside a plain one.

    python benchmarks/kernel_start.py [--runs 15]

Both kernels are started one after the other, in turns, so that what else the machine does meets both. The
time runs from the spawn of the process to the first ``kernel_info_reply``; for ours to the later of that
and the first HTTP answer of its app. The processor time of the whole process, its end included, says what a
start costs where processors are scarce. Prints a JSON line per kernel, and one with the ratio of the medians.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from _common import emit
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

COMMANDS = {"python3": ("-m", "ipykernel_launcher"), "learning_observer": ("-m", "lo_kernel")}
LIMIT = 30.0  # seconds for one start


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print JSON lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args(argv).runs
    with tempfile.TemporaryDirectory() as folder:
        times: dict[str, list[float]] = {name: [] for name in COMMANDS}
        processor: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for turn in range(runs + 1):
            for name in COMMANDS:
                before = processor_time()
                seconds = start(name, Path(folder))
                if turn:  # the first turn compiles bytecode, makes the workspace and warms the disk's cache
                    times[name].append(seconds)
                    processor[name].append(processor_time() - before)
    for name, values in times.items():
        quartiles = statistics.quantiles(values, n=4)
        emit(
            "kernel_start",
            kernel=name,
            median_ms=round(statistics.median(values) * 1000, 1),
            quartiles_ms=[round(quartiles[0] * 1000, 1), round(quartiles[2] * 1000, 1)],
            best_ms=round(min(values) * 1000, 1),
            processor_ms=round(statistics.median(processor[name]) * 1000, 1),
            runs=runs,
        )
    plain, ours = (times[name] for name in COMMANDS)
    plain_cost, cost = (processor[name] for name in COMMANDS)
    emit(
        "kernel_start",
        ratio=round(statistics.median(ours) / statistics.median(plain), 3),
        ratio_of_best=round(min(ours) / min(plain), 3),
        ratio_of_processor=round(statistics.median(cost) / statistics.median(plain_cost), 3),
        limit=1.3,
    )


def start(name: str, folder: Path) -> float:
    """Start one kernel, wait until it answers, end it; the seconds that it took to answer."""
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LO_KERNEL_")}
    # an installed package has its bytecode; where the environment forbids to write it, ours would be
    # compiled with each start, and pip has compiled ipykernel's
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment |= {
        "LO_KERNEL_WORKSPACE": str(folder / "workspace"),
        "LO_KERNEL_PORT": str(port),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }
    file, _ = write_connection_file(str(folder / f"{name}.json"))
    client = BlockingKernelClient(connection_file=file)
    client.load_connection_file()
    client.start_channels()
    answered: list[float] = []
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *COMMANDS[name], "-f", file],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    watcher = threading.Thread(target=lambda: answered.append(wait_for_http(port)))
    try:
        if name == "learning_observer":
            watcher.start()
        client.kernel_info()
        client.get_shell_msg(timeout=LIMIT)
        ready = time.perf_counter()
        if watcher.ident is not None:
            watcher.join()
            if not answered:
                raise SystemExit("the app did not answer")
            ready = max(ready, *answered)
        client.shutdown()
        process.wait(timeout=LIMIT)
    finally:
        process.kill()
        client.stop_channels()
        client.context.destroy(linger=0)
        Path(file).unlink(missing_ok=True)
    return ready - began


def processor_time() -> float:
    """Seconds of processor time that the processes took which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def wait_for_http(port: int) -> float:
    """When the app gave its first HTTP answer, whatever that was."""
    deadline = time.perf_counter() + LIMIT
    while time.perf_counter() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as connection:
                connection.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
                if connection.recv(8).startswith(b"HTTP/"):
                    return time.perf_counter()
        except OSError:
            time.sleep(0.005)
    raise TimeoutError(f"the app on port {port} did not answer within {LIMIT:g} s")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
