"""What the benchmarks share: results as JSON lines on stdout, with what they were measured on."""

from __future__ import annotations

import json
import os
import platform
import sys
from typing import Any

__all__ = ["emit"]


def emit(benchmark: str, **values: Any) -> None:
    """Print one result as a line of JSON."""
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "system": platform.system()}
    print(json.dumps({"benchmark": benchmark, **values, "machine": machine}), file=sys.stdout, flush=True)
