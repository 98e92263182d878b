"""Erasing a learner, giving all that is held of one, and names only for a reason."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import StartKernel
from harness import RunningKernel

from lo_kernel.kernel.audit.reading import AuditReader
from lo_kernel.kernel.audit.verify import verify

SETUP = """\
from lo_kernel import EventField, Scope

@lo.reducer("seen", null_state={"count": 0})
def seen(event, state):
    count = state["count"] + 1
    return {"count": count}, {"count": count}

@lo.reducer("everyone", scope=Scope([EventField("event")]), null_state={"who": []})
def everyone(event, state):
    who = sorted({*state["who"], event["client"]["auth"]["safe_user_id"]})
    return {"who": who}, {"who": who}
await lo.simulate(students=3, seconds=0.25, speed=80, seed=1)
rows = await lo.query("seen")
who = rows[0]["student"]
"""
EVERYONE = "(await lo.kvs[next(k for k in await lo.kvs.keys('Internal') if 'everyone' in k)])['who']"


def holding(folder: Path, word: str) -> list[str]:
    """Files below a folder in which a word stands, also compressed ones."""
    from zstandard import ZstdDecompressor

    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if path.suffix == ".zst":
                data = ZstdDecompressor().stream_reader(data).read()
            if word.encode() in data:
                found.append(path.name)
    return found


@pytest.fixture
def study(start_kernel: StartKernel) -> RunningKernel:
    """A kernel with a reducer for each learner and one over all of them."""
    kernel = start_kernel()
    kernel.execute(SETUP)
    return kernel


def test_an_erased_learner_is_gone_everywhere(study: RunningKernel) -> None:
    """Events, states, shared states, the list of learners, the record's alias and its texts."""
    who = study.execute("print(who)").text.strip()
    before = int(study.execute("print(lo.events.count())").text)
    theirs = int(study.execute("print(len(lo.events.filter(learner=who)))").text)
    assert theirs > 0
    told = study.execute(f"lo.audit.cells(); report = await lo.erase({who!r}); print(report)").text
    assert f"{theirs:,} events" in told
    assert "out of reach" in told
    assert study.execute(f"print(lo.events.filter(learner={who!r}))").text == "[]\n"
    assert who not in study.execute("print([row['student'] for row in await lo.query('seen')])").text
    left = study.execute(f"print({EVERYONE})").text
    assert who not in left
    assert left.count("tc-") == 2
    assert int(study.execute("print(lo.events.count())").text) == before - theirs
    study.stop()
    # the cells that this test ran since then name the learner again, and so does the list of what was run
    log = [name for name in holding(study.workspace, who) if not name.startswith("text-")]
    assert log == []
    state = Path(study.environment["XDG_STATE_HOME"]) / "lo_kernel" / "audit"
    verdict = verify(study.workspace, state=state)
    assert verdict.ok, verdict
    assert not AuditReader(study.workspace).events(student=who)


def test_what_remains_goes_on_after_a_restart(study: RunningKernel) -> None:
    """Erased events stay erased, and the others' counts are what they were."""
    counts = "print({row['student']: row['count'] for row in await lo.query('seen')})"
    others = study.execute(counts).text
    who = study.execute("print(who)").text.strip()
    study.execute("await lo.erase(who)")
    study.restart()
    study.execute(SETUP.split("await lo.simulate")[0])
    again = study.execute(counts).text
    assert who not in again
    assert {k: v for k, v in eval(others).items() if k != who} == eval(again)


def test_erasing_nobody_is_an_error(study: RunningKernel) -> None:
    """Who was never seen can't be erased; the message names who was."""
    assert "expected the safe id" in study.execute("lo.erase('tc-nobody')", check=False).error


def test_all_that_is_held_of_a_learner_is_one_file(study: RunningKernel) -> None:
    """Events, states and what has read them, for the user alone; it goes on record."""
    study.execute("path = await lo.export_student(who); print(path)")
    path = study.root / f"{study.execute('print(who)').text.strip()}.json"
    data = json.loads(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert data["learner"]["events"] == len(data["events"]) > 0
    assert any(value["count"] == len(data["events"]) for value in data["states"].values())
    assert any("lo.query" in row["what"] for row in data["record"])
    assert [r for r in AuditReader(study.workspace).records() if r.get("what") == "export student"]


def test_names_only_for_a_reason_that_goes_on_record(start_kernel: StartKernel, tmp_path: Path) -> None:
    """Rows have safe ids, and after `lo.reveal` names, too; the reason and whose they were is on record."""
    roster = tmp_path / "roster.csv"
    ids = [f"tc-testcase-sim-{number:02d}" for number in range(1, 4)]
    roster.write_text("user_id,name\n" + "".join(f"{each},Real Name {each[-2:]}\n" for each in ids))
    kernel = start_kernel(env={"LO_KERNEL_ROSTER": str(roster)})
    kernel.execute(SETUP)
    assert "Real Name" not in kernel.execute("print(await lo.query('seen'))").text
    assert "reason" in kernel.execute("lo.reveal(reason='')", check=False).error
    kernel.execute("await lo.reveal(reason='consent forms')")
    assert "Real Name" in kernel.execute("print(await lo.query('seen'))").text
    deed = next(r for r in AuditReader(kernel.workspace).records() if r.get("what") == "reveal")
    assert (deed["reason"], deed["learners"]) == ("consent forms", 3)


def test_the_commands_do_the_same(study: RunningKernel) -> None:
    """`lo-kernel export-student` and `lo-kernel erase`, on a workspace that nobody uses."""
    who = study.execute("print(who)").text.strip()
    study.stop()

    def lo_kernel(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lo_kernel", *arguments],
            env=study.environment,
            cwd=study.root,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    exported = lo_kernel("export-student", who, "--output", "one.json")
    assert exported.returncode == 0, exported.stderr
    assert json.loads((study.root / "one.json").read_text())["events"]
    assert lo_kernel("erase", who).returncode == 2
    erased = lo_kernel("erase", who, "--yes")
    assert erased.returncode == 0, erased.stderr
    assert holding(study.workspace, who) == []
    assert lo_kernel("audit", "verify").returncode == 0
