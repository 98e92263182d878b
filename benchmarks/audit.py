"""What the record costs: a burst of output, the round trip of ``1+1``, checking the chain, and its size.

    python benchmarks/audit.py [--messages 100000] [--bursts 3] [--round-trips 300] [--records 300000]

The kernel of this package, with its record, and a plain one run side by side and are asked in turns, so that
what else the machine does meets both. ``burst`` is the time of a cell that puts out many messages, as the
cell itself takes it, and whether the record has counted them all. ``round_trip`` is from an execute
request to its reply. ``verify`` is records a second, ``day`` the record of a working day: 2,000 cells over
a class of 1,000. Prints JSON lines: medians, and ratios of medians. Exits with 1 where the record has not
counted all that was put out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _common import emit
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

COMMANDS = {"python3": ("-m", "ipykernel_launcher"), "learning_observer": ("-m", "lo_kernel")}
LIMIT = 300.0

BURST = """
import time
from IPython.display import publish_display_data
began = time.perf_counter()
for number in range({messages}):
    publish_display_data({{"text/plain": str(number)}})
took = time.perf_counter() - began
"""


class Kernel:
    """A kernel process and its client."""

    def __init__(self, name: str, folder: Path) -> None:
        import subprocess

        self.name = name
        self.workspace = folder / "workspace"
        self.file, _ = write_connection_file(str(folder / f"{name}.json"))
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LO_KERNEL_")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment |= {
            "LO_KERNEL_WORKSPACE": str(self.workspace),
            "LO_KERNEL_PORT": "0",
            "IPYTHONDIR": str(folder / "ipython"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        self.process = subprocess.Popen(
            [sys.executable, *COMMANDS[name], "-f", self.file],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.client = BlockingKernelClient(connection_file=self.file)
        self.client.load_connection_file()
        self.client.start_channels()
        self.client.kernel_info()
        self.client.get_shell_msg(timeout=LIMIT)

    def run(self, code: str, expression: str = "0") -> tuple[str, float]:
        """Run a cell: the value of ``expression``, and the seconds from request to reply.

        Afterwards its IOPub is emptied. A kernel drops messages of a front end that is too slow, so its last
        one may not come.
        """
        began = time.perf_counter()
        self.client.execute(code, user_expressions={"value": expression})
        reply = self.client.get_shell_msg(timeout=LIMIT)
        took = time.perf_counter() - began
        socket = self.client.iopub_channel.socket
        while socket.poll(20):
            socket.recv_multipart()
        return reply["content"]["user_expressions"]["value"]["data"]["text/plain"], took

    def stop(self) -> None:
        """End it."""
        self.client.shutdown()
        self.process.wait(timeout=LIMIT)
        self.client.stop_channels()
        self.client.context.destroy(linger=0)


@contextmanager
def kernels(folder: Path) -> Iterator[list[Kernel]]:
    """Both kernels."""
    running = [Kernel(name, folder) for name in COMMANDS]
    try:
        yield running
    finally:
        for kernel in running:
            kernel.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print JSON lines; 1 where the record is not complete."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--bursts", type=int, default=3)
    parser.add_argument("--round-trips", type=int, default=300)
    parser.add_argument("--records", type=int, default=300_000)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with kernels(root) as running:
            round_trips(running, options.round_trips)
            bursts(running, options.bursts, options.messages)
        complete = counted(root, options.bursts, options.messages)
    with tempfile.TemporaryDirectory() as folder:
        verifying(Path(folder), options.records)
    with tempfile.TemporaryDirectory() as folder:
        working_day(Path(folder))
    return 0 if complete else 1


def round_trips(running: Sequence[Kernel], count: int) -> None:
    """``1+1``, in turns."""
    times: dict[str, list[float]] = {kernel.name: [] for kernel in running}
    for turn in range(count + 20):
        for kernel in running if turn % 2 else reversed(running):
            took = kernel.run("1+1")[1]
            if turn >= 20:
                times[kernel.name].append(took)
    report("round_trip", times, limit=1.1)


def bursts(running: Sequence[Kernel], count: int, messages: int) -> None:
    """Many output messages, in turns."""
    times: dict[str, list[float]] = {kernel.name: [] for kernel in running}
    for turn in range(count + 1):
        for kernel in running if turn % 2 else reversed(running):
            code = BURST.format(messages=messages if turn else 1000)
            took = float(kernel.run(code, "took")[0])
            if turn:
                times[kernel.name].append(took)
    report("burst", times, limit=1.1, messages=messages)


def report(what: str, times: dict[str, list[float]], **values: Any) -> None:
    """Medians of both, and their ratio."""
    medians = {name: statistics.median(found) for name, found in times.items()}
    emit(
        f"audit_{what}",
        median_ms={name: round(median * 1000, 3) for name, median in medians.items()},
        ratio=round(medians["learning_observer"] / medians["python3"], 3),
        ratio_of_best=round(min(times["learning_observer"]) / min(times["python3"]), 3),
        runs=len(times["python3"]),
        **values,
    )


def counted(root: Path, bursts: int, messages: int) -> bool:
    """Whether the record has counted every message of every burst, has no gap, and is whole."""
    from lo_kernel.kernel.audit.reading import AuditReader
    from lo_kernel.kernel.audit.verify import verify

    workspace, state = root / "workspace", root / "state" / "lo_kernel" / "audit"
    records = list(AuditReader(workspace).records())
    sent = {
        record["request"]
        for record in records
        if record["kind"] == "intent" and f"range({messages})" in str(record.get("code"))
    }
    found = [
        record.get("outputs", {}).get("text/plain", [0])[0]
        for record in records
        if record["kind"] == "outcome" and record["request"] in sent and not record.get("late")
    ]
    gaps = sum(record["kind"] == "gap" for record in records)
    whole = verify(workspace, state=state).ok
    complete = len(found) == len(sent) >= bursts and min(found, default=0) >= messages and not gaps and whole
    emit("audit_counted", sent=[messages] * bursts, messages=found, gaps=gaps, whole=whole, complete=complete)
    return complete


def verifying(folder: Path, records: int) -> None:
    """Records a second, on a chain of ordinary records."""
    from lo_kernel.kernel.audit.verify import verify

    write_day(folder, cells=records // 3, learners=100)
    began = time.perf_counter()
    verdict = verify(folder / "workspace", state=folder / "state")
    took = time.perf_counter() - began
    emit(
        "audit_verify",
        records=verdict.records,
        whole=verdict.ok,
        records_per_second=round(verdict.records / took),
        limit=200_000,
    )


def working_day(folder: Path) -> None:
    """The size of the record of 2,000 cells over a class of 1,000, as it grows."""
    write_day(folder, cells=2000, learners=1000, growing=True)
    files = list((folder / "workspace" / "audit").iterdir())
    total = sum(path.stat().st_size for path in files)
    emit("audit_day", cells=2000, learners=1000, megabytes=round(total / 1e6, 2), limit=10)


def write_day(folder: Path, *, cells: int, learners: int, growing: bool = False) -> None:
    """A record like that of a notebook: each cell reads a class that grows by one with each cell."""
    from lo_kernel.kernel.audit.requests import KernelRecord
    from lo_kernel.kernel.monitor import Outcome
    from lo_kernel.settings import Settings

    record = KernelRecord(Settings(workspace=str(folder / "workspace")), state=folder / "state")
    record.open({"USER": "bench"}, role="benchmark")
    everyone = [f"tc-learner-{number}" for number in range(learners)]
    code = "rows = await lo.query('event_count')\nlo.dashboard('event_count')  # what a cell has\n" * 5
    for number in range(cells):
        header = {"msg_id": f"a2a7672b-64a036c781a2220c89f82f5f_12450_{number}", "session": "a2a7672b" * 4}
        token = record.execute(
            header, code, silent=False, history=True, expressions={}, cell=f"cell-{number:032d}"
        )
        seen = everyone[: max(1, (number + 1) * learners // cells)] if growing else everyone
        record.recorder.record("query", "jupyter-helper: event_count", seen)
        record.executed(token, header["msg_id"], {"status": "ok"})
        began, ended = "2026-03-02T08:00:00.000000Z", "2026-03-02T08:00:00.012000Z"
        outputs = {"text/html": [1, 2000], "text/plain": [1, 300]}
        record.outcome(Outcome(header["msg_id"], "execute_request", began, ended, outputs=outputs))
    record.close()


if __name__ == "__main__":
    sys.exit(main())
