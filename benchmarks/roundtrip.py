"""How long ``1+1`` takes from request to reply, and how much memory a kernel holds; beside a plain one.

    python benchmarks/roundtrip.py [--blocks 20] [--cells 25]

Both kernels run at the same time and are asked in turns, a block of cells each. A round trip ends with the
later of the reply and the kernel's word that it is idle. Memory is the resident set after that, which holds
what starting and running a cell bring in. Prints a JSON line for each kernel, and one with both compared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from _common import emit
from _kernel import COMMANDS, Kernel, running_kernel


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print JSON lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--cells", type=int, default=25)
    options = parser.parse_args(argv)
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    memory: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        running_kernel(Path(folder) / "plain", "python3") as plain,
        running_kernel(Path(folder) / "ours") as ours,
    ):
        kernels = dict(zip(COMMANDS, (plain, ours), strict=True))
        for block in range(options.blocks + 1):
            for name, kernel in kernels.items():
                taken = [round_trip(kernel) for _ in range(options.cells)]
                if block:  # the first one warms up
                    times[name] += taken
        for name, kernel in kernels.items():
            memory[name] = resident(kernel.pid)
    for name, values in times.items():
        emit(
            "roundtrip",
            kernel=name,
            median_ms=round(statistics.median(values) * 1000, 3),
            p95_ms=round(statistics.quantiles(values, n=20)[-1] * 1000, 3),
            memory_mb=round(memory[name], 1),
            cells=len(values),
        )
    first, second = COMMANDS
    emit(
        "roundtrip",
        ratio=round(statistics.median(times[second]) / statistics.median(times[first]), 3),
        limit=1.1,
        memory_over_mb=round(memory[second] - memory[first], 1),
        memory_limit_mb=30,
    )


def round_trip(kernel: Kernel) -> float:
    """Seconds from a request until its reply and the kernel's word that it is idle are there."""
    began = time.perf_counter()
    message = kernel.client.execute("1+1")
    while kernel.client.get_shell_msg(timeout=30)["parent_header"].get("msg_id") != message:
        pass
    while True:
        heard = kernel.client.get_iopub_msg(timeout=30)
        ours = heard["parent_header"].get("msg_id") == message
        if ours and heard["msg_type"] == "status" and heard["content"]["execution_state"] == "idle":
            return time.perf_counter() - began


def resident(pid: int) -> float:
    """Resident memory of a process in MB; Linux."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("no resident memory in /proc: this part runs on Linux")


if __name__ == "__main__":
    main()
