"""The kernel in a terminal: `jupyter console`, and our own `--loconsole`, typed into a real one."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

Open = Callable[..., Any]

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\r")


@pytest.fixture
def terminal() -> Iterator[Open]:
    """Open a program in a terminal of its own; they end with the test."""
    opened: list[Any] = []

    def open_one(*arguments: str) -> Any:
        child = pexpect.spawn(
            sys.executable,
            list(arguments),
            env=os.environ | {"TERM": "dumb", "PROMPT_TOOLKIT_NO_CPR": "1"},
            encoding="utf-8",
            timeout=25,
            dimensions=(50, 200),
        )
        opened.append(child)
        return child

    yield open_one
    for child in opened:
        child.close(force=True)


def typed(child: Any, line: str, expected: str) -> str:
    """Type a line, wait for what it shows; all that was shown until then."""
    child.sendline(line)
    child.expect(expected)
    return _ESCAPES.sub("", child.before + child.after)


def test_jupyter_console_runs_it(terminal: Open) -> None:
    """The banner says where the app answers, a cell sees `lo`, and leaving ends the kernel."""
    console = terminal(
        "-m", "jupyter_console", "--kernel", "learning_observer", "--simple-prompt", "--no-confirm-exit"
    )
    console.expect(r"the app answers at http://127\.0\.0\.1:\d+/")
    console.expect(r"In \[1\]:")
    typed(console, "print(lo.port + 0)", r"\n\d{2,5}\r?\n")
    console.expect(r"In \[2\]:")
    typed(console, "exit", "Shutting down kernel")
    console.expect(pexpect.EOF)


def test_a_console_shows_card_and_chart_as_text(terminal: Open) -> None:
    """`lo` is a few plain lines there, and a live chart a table with bars, printed once."""
    console = terminal(
        "-m", "jupyter_console", "--kernel", "learning_observer", "--simple-prompt", "--no-confirm-exit"
    )
    console.expect(r"In \[1\]:")
    typed(console, "lo", r"Learning Observer at http://127\.0\.0\.1:\d+/\r?\n  loop +kernel")
    console.expect(r"In \[2\]:")
    count = "lambda event, state: ({'count': state['count'] + 1},) * 2"
    typed(console, f"r = lo.reducer('seen', null_state={{'count': 0}})({count})", r"In \[3\]:")
    typed(console, "await lo.simulate(students=3, seconds=0.25, speed=40, seed=1)", r"In \[4\]:")
    table = typed(console, "lo.dashboard('seen')", r"In \[5\]:")
    assert re.search(
        r"3 learners · as of [\d:]+ · http://127.*student +count\nsim-0\d +\d+ +█+\n", table, re.DOTALL
    )
    more = typed(console, "await lo.simulate(students=3, seconds=0.25, speed=40, seed=2)", r"In \[6\]:")
    assert "█" not in more
    typed(console, "exit", "Shutting down kernel")
    console.expect(pexpect.EOF)


def test_loconsole_is_a_shell_that_others_can_join(terminal: Open) -> None:
    """It prints the line that joins; a second console does and sees the same names; both can leave."""
    shell = terminal("-m", "lo_kernel", "--loconsole", "--port", "0", "--", "--colors=NoColor")
    shell.expect(r"jupyter console --existing (kernel-[\w-]+\.json)")
    file = shell.match.group(1)
    shell.expect(r"In \[1\]:")
    typed(shell, "mine = 6 * 7", r"In \[2\]:")
    guest = terminal("-m", "jupyter_console", "--existing", file, "--simple-prompt", "--no-confirm-exit")
    guest.expect(r"In \[\d+\]:")
    typed(guest, "print('seen', mine, lo.port > 0)", "seen 42 True")
    guest.sendline("quit(keep_kernel=True)")
    guest.expect(pexpect.EOF)
    typed(shell, "print('still', mine)", "still 42")
    connection_file = Path(os.environ["JUPYTER_RUNTIME_DIR"]) / file
    assert connection_file.exists()
    shell.sendline("exit")
    shell.expect(pexpect.EOF)
    assert not connection_file.exists()


def test_ctrl_c_in_loconsole_interrupts_the_cell(terminal: Open) -> None:
    """Ctrl-C stops the cell, and neither the shell nor the kernel."""
    shell = terminal("-m", "lo_kernel", "--loconsole")
    shell.expect(r"In \[1\]:")
    typed(shell, "import time; print('go' + 'ing'); time.sleep(60)", "going")
    shell.sendintr()
    shell.expect("KeyboardInterrupt")
    shell.expect(r"In \[2\]:")
    typed(shell, "print('a' + 'live')", "alive")
