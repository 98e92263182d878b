"""The record's chain: every change to it is found, and everything that is no change isn't."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lo_kernel.kernel.audit.chain import text_of
from lo_kernel.kernel.audit.erasing import delete_texts, pack, retain
from lo_kernel.kernel.audit.log import AuditLog
from lo_kernel.kernel.audit.reading import AuditReader
from lo_kernel.kernel.audit.recorder import Recorder
from lo_kernel.kernel.audit.verify import Verdict, verify

DAY = 86_400 * 10**9
NOON = 20_000 * DAY + DAY // 2


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The folder that is outside of the workspace."""
    return tmp_path / "state"


@pytest.fixture
def log(workspace: Path, state: Path) -> Any:
    """An open record with ten entries after its first."""
    made = AuditLog(workspace, state=state)
    made.open()
    for number in range(10):
        text = text_of(f"code {number}")
        made.append("note", {"number": number, "code": f"text:{text.hash}"}, [text])
    yield made
    made.close()


def file_of(log: AuditLog) -> Path:
    """The chain's newest file."""
    return sorted(log.folder.glob("log-*.jsonl"))[-1]


def lines(log: AuditLog) -> list[bytes]:
    """Its lines."""
    return file_of(log).read_bytes().splitlines(keepends=True)


def rewrite(log: AuditLog, new: list[bytes]) -> None:
    """Put other lines in their place."""
    file_of(log).write_bytes(b"".join(new))


def check(log: AuditLog) -> Verdict:
    """What the check finds."""
    return verify(log.workspace, state=log.state)


def test_a_record_that_nobody_touched_is_whole(log: AuditLog) -> None:
    """All is found, and nothing is wrong with it."""
    verdict = check(log)
    assert verdict.ok, verdict
    assert (verdict.records, verdict.notes) == (11, [])


def test_each_line_is_canonical_and_can_be_checked_by_others(log: AuditLog) -> None:
    """With nothing but JSON and SHA-256, as the schema says, the chain can be followed."""
    import hashlib

    before = "0" * 64
    for line in lines(log):
        record = json.loads(line)
        found = record.pop("hash")
        body = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert hashlib.sha256(before.encode() + body).hexdigest() == found
        before = found


@pytest.mark.parametrize("place", [0, 4, 10])
def test_any_flipped_byte_is_found(log: AuditLog, place: int) -> None:
    """Whichever byte of a line is changed, the check names that line."""
    whole = lines(log)
    for at in range(len(whole[place])):
        changed = bytearray(whole[place])
        changed[at] ^= 1
        rewrite(log, [*whole[:place], bytes(changed), *whole[place + 1 :]])
        verdict = check(log)
        assert not verdict.ok
        assert verdict.problems[0].line in (place + 1, 0), f"byte {at}: {verdict}"


@pytest.mark.parametrize("place", [0, 5, 10])
def test_a_removed_line_is_found(log: AuditLog, place: int) -> None:
    """It says which records are missing, at the end of the file too."""
    whole = lines(log)
    rewrite(log, whole[:place] + whole[place + 1 :])
    verdict = check(log)
    assert not verdict.ok
    assert str(place + 1) in str(verdict)


def test_a_file_cut_off_is_found(log: AuditLog) -> None:
    """A chain that ends too early is found by what is kept outside, also when the workspace's own is gone."""
    rewrite(log, lines(log)[:6])
    (log.folder / "head").unlink()
    verdict = check(log)
    assert not verdict.ok
    assert "5 records are gone" in str(verdict)


def test_a_chain_rewritten_from_the_start_is_found(log: AuditLog, tmp_path: Path) -> None:
    """A consistent chain put in its place doesn't end as the one that was there."""
    other = AuditLog(tmp_path / "other", state=tmp_path / "other-state")
    other.open()
    for number in range(20):
        other.append("note", {"number": number})
    other.close()
    rewrite(log, lines(other))
    (log.folder / "head").write_bytes((other.folder / "head").read_bytes())
    assert "another one" in str(check(log))


def test_swapped_lines_are_found(log: AuditLog) -> None:
    """The order is part of the chain."""
    whole = lines(log)
    whole[3], whole[4] = whole[4], whole[3]
    rewrite(log, whole)
    verdict = check(log)
    assert verdict.problems[0].line == 4


def test_an_inserted_line_is_found(log: AuditLog) -> None:
    """A line that was not there, or is there twice."""
    whole = lines(log)
    rewrite(log, [*whole[:5], whole[2], *whole[5:]])
    assert check(log).problems[0].line == 6


def test_a_record_that_is_gone_altogether_is_found(log: AuditLog) -> None:
    """Deleting every file of it doesn't make it new."""
    log.close()
    for path in log.folder.iterdir():
        path.unlink()
    assert "had another one, of 11 records" in str(check(log))


def test_writing_goes_on_after_a_loss_and_does_not_cover_it(log: AuditLog) -> None:
    """A kernel that starts on a shortened chain goes on from where that was: the hole stays visible."""
    rewrite(log, lines(log)[:6])
    log.close()
    again = AuditLog(log.workspace, state=log.state)
    again.open()
    again.append("note", {})
    again.close()
    verdict = check(log)
    assert not verdict.ok
    assert "6 to 11" not in str(verdict)
    assert "7 to 11" in str(verdict)


def test_a_half_written_line_is_no_change(log: AuditLog) -> None:
    """What a crash leaves is told from what a hand does, is cut off, and is a gap on record."""
    log.close()
    with file_of(log).open("ab") as file:
        file.write(b'{"at":"2026-')
    assert check(log).ok
    again = AuditLog(log.workspace, state=log.state)
    again.open()
    assert again.append("note", {}) == 13
    again.close()
    verdict = check(log)
    assert verdict.ok, verdict
    assert "torn line" in str(verdict)


def test_files_are_private(log: AuditLog) -> None:
    """Nobody but their user can read them; inside and outside of the workspace."""
    log.close()
    for path in [*log.folder.iterdir(), *(log.state or log.folder).iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_processes_share_one_chain(log: AuditLog) -> None:
    """Several processes write at the same time, and the chain stays one."""
    code = (
        "import sys; from pathlib import Path; from lo_kernel.kernel.audit.log import AuditLog\n"
        "log = AuditLog(Path(sys.argv[1]), state=Path(sys.argv[2])); log.open()\n"
        "for number in range(300): log.append('note', {'number': number})\n"
        "log.close()"
    )
    command = [sys.executable, "-c", code, str(log.workspace), str(log.state)]
    others = [subprocess.Popen(command) for _ in range(3)]
    for number in range(300):
        log.append("note", {"number": number})
    assert [other.wait(30) for other in others] == [0, 0, 0]
    verdict = check(log)
    assert verdict.ok, verdict
    assert verdict.records == 11 + 4 * 300


def test_a_forked_process_writes_a_run_of_its_own(log: AuditLog) -> None:
    """A child made by fork shares nothing that would break the chain."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for number in range(100):
                log.append("note", {"number": number})
            status = 0
        finally:
            os._exit(status)
    for number in range(100):
        log.append("note", {"number": number})
    assert os.waitpid(child, 0)[1] == 0
    verdict = check(log)
    assert verdict.ok, verdict
    assert verdict.records == 211
    assert len({record["run"] for record in AuditReader(log.workspace).records()}) == 2


def rotating(workspace: Path, state: Path, *, days: int) -> tuple[AuditLog, list[int]]:
    """A record of several days, a file each, and its clock."""
    now = [NOON]
    made = AuditLog(workspace, state=state, clock=lambda: now[0])
    made.open()
    for _ in range(days):
        for number in range(5):
            text = text_of(f"day code {number}")
            made.append("note", {"code": f"text:{text.hash}"}, [text])
        now[0] += DAY
    made.append("note", {})
    return made, now


def test_the_chain_goes_on_across_rotation_and_compression(workspace: Path, state: Path) -> None:
    """A day begins a file; closed ones are compressed; the chain runs through all, and so does the reader."""
    log, _ = rotating(workspace, state, days=3)
    pack(log)
    log.close()
    assert len(list(log.folder.glob("log-*.jsonl.zst"))) == 3
    assert len(list(log.folder.glob("log-*.jsonl"))) == 1
    assert verify(workspace, state=state).ok
    codes = [record["code"] for record in AuditReader(workspace).records() if "code" in record]
    assert codes == [f"day code {number}" for number in range(5)] * 3


def test_size_begins_a_file(workspace: Path, state: Path) -> None:
    """A file that is full is followed by the next."""
    log = AuditLog(workspace, state=state, rotate_bytes=2000)
    log.open()
    for _ in range(30):
        log.append("note", {})
    log.close()
    assert len(list(log.folder.glob("log-*.jsonl"))) > 2
    assert verify(workspace, state=state).ok


def test_retention_leaves_a_signed_anchor(workspace: Path, state: Path) -> None:
    """What retention deletes is told from what somebody deletes; and an anchor made up by hand isn't good."""
    log, now = rotating(workspace, state, days=4)
    pack(log)
    assert retain(log, 2, now=now[0]) == 12
    log.close()
    verdict = verify(workspace, state=state)
    assert verdict.ok, verdict
    assert "deleted" in str(verdict)
    assert retain(log, 0) == 0
    oldest = sorted(log.folder.glob("log-*"))[0]
    kept = oldest.read_bytes()
    oldest.unlink()
    assert "no anchor says why" in str(verify(workspace, state=state))
    oldest.write_bytes(kept)
    anchors = log.folder / "anchors.jsonl"
    anchors.write_text(anchors.read_text().replace("older than 2 days", "older than 1 days"))
    assert "signature is not good" in str(verify(workspace, state=state))


def test_a_text_can_be_deleted_and_the_chain_stays_whole(log: AuditLog) -> None:
    """Deleted on record, the chain verifies and the text is nowhere any more."""
    assert delete_texts(log, lambda text: "code 3" in text, "a name stood in it") == 1
    verdict = check(log)
    assert verdict.ok, verdict
    assert "1 text of it deleted, on record" in str(verdict)
    assert b"code 3" not in b"".join(path.read_bytes() for path in log.folder.iterdir())
    codes = [record.get("code") for record in AuditReader(log.workspace).records()]
    assert "(deleted)" in codes
    assert "code 4" in codes
    log.append("note", {"code": "x"}, [text_of("x")])
    assert check(log).ok


@pytest.mark.parametrize("how", ["removed", "changed"])
def test_a_text_deleted_or_changed_by_hand_is_found(log: AuditLog, how: str) -> None:
    """Texts lie beside the chain, and still can't be touched unseen."""
    (path,) = log.folder.glob("text-*.jsonl")
    texts = path.read_text().splitlines(keepends=True)
    if how == "removed":
        path.write_text("".join(texts[1:]))
        assert "1 texts are gone" in str(check(log))
    else:
        path.write_text("".join(texts).replace("code 3", "code 9"))
        assert "not what was written" in str(check(log))


def test_what_cannot_be_written_is_a_gap_and_harms_nobody(log: AuditLog) -> None:
    """A failing disk raises nothing, is said once, and how much was lost is on record afterwards."""
    told: list[BaseException] = []
    recorder = Recorder(log, on_error=told.append)
    write, log._write = log._write, broken  # type: ignore[assignment,method-assign]
    recorder.record("query", "q", ["tc-a"])
    recorder.act("reducer", "r")
    log._write = write  # type: ignore[method-assign]
    recorder.act("reducer", "r")
    assert len(told) == 1
    gap = next(record for record in AuditReader(log.workspace).records() if record["kind"] == "gap")
    assert (gap["reason"], gap["records"]) == ("not written", 2)
    assert check(log).ok


def broken(*_: Any) -> int:
    """A disk that is full."""
    raise OSError(28, "No space left on device")


def test_sets_of_learners_are_written_when_they_change(log: AuditLog) -> None:
    """A thousand readings of the same class are one; one learner more is a small difference."""
    recorder = Recorder(log)
    everyone = [f"tc-{number}" for number in range(1000)]
    before = file_of(log).stat().st_size
    for _ in range(1000):
        recorder.record("query", "q", everyone)
    assert file_of(log).stat().st_size - before < 20_000
    before = file_of(log).stat().st_size
    recorder.record("query", "q", [*everyone, "tc-new"])
    assert file_of(log).stat().st_size - before < 1000
    events = AuditReader(log.workspace).events(student="tc-new")
    assert [event["learners"] for event in events] == [1001]
    assert "tc-7" not in file_of(log).read_text()


def test_without_the_alias_the_record_is_whole_and_names_nobody(log: AuditLog) -> None:
    """An erased learner's alias means nobody; who comes back under the same id gets another."""
    recorder = Recorder(log)
    recorder.record("query", "q", ["tc-ada", "tc-alan"])
    assert len(AuditReader(log.workspace).events(student="tc-ada")) == 1
    assert recorder.forget("tc-ada") == 0
    reader = AuditReader(log.workspace)
    assert not reader.events(student="tc-ada")
    assert b"tc-ada" not in b"".join(path.read_bytes() for path in log.folder.iterdir())
    number = reader.events(student="tc-alan")[0]["n"]
    assert any(name.startswith("erased") for name in reader.learners_of(number))
    assert check(log).ok
    recorder.record("query", "q", ["tc-ada"])
    assert len(AuditReader(log.workspace).events(student="tc-ada")) == 1


def command(log: AuditLog, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, on this record."""
    return subprocess.run(
        [sys.executable, "-m", "lo_kernel", "audit", *arguments, f"--workspace={log.workspace}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.fixture
def told(workspace: Path) -> Any:
    """A record, in the user's own state folder, of a cell that read a learner, and of one that didn't."""
    made = AuditLog(workspace)
    made.open()
    recorder = Recorder(made)
    for number, code in enumerate(("await lo.query('<b>words</b>')", "=1+1")):
        header = {"msg_id": f"m{number}", "session": "s"}
        token = recorder.begin("execute", header, {"silent": False, "history": True}, {"code": code})
        if not number:
            recorder.record("query", "words", ["tc-ada"])
        recorder.end(token)
    yield made
    made.close()


def test_the_command_line_verifies_and_says_where(told: AuditLog) -> None:
    """Exit code 0 for a whole record, and 1 for another, with file and line."""
    fine = command(told, "verify")
    assert (fine.returncode, fine.stdout.startswith("whole: 5 records")) == (0, True), fine
    rewrite(told, lines(told)[:2] + lines(told)[3:])
    changed = command(told, "verify")
    assert changed.returncode == 1
    assert "line 3" in changed.stdout


def test_the_command_line_shows_and_exports(told: AuditLog, tmp_path: Path) -> None:
    """What is on it, what has read one learner, files of each kind; a page needs nothing from elsewhere."""
    assert "=1+1" in command(told, "show").stdout
    of = command(told, "of", "tc-ada").stdout
    assert "lo.query" in of
    assert "=1+1" not in of
    assert command(told, "of").returncode == 2
    assert len(command(told, "export").stdout.splitlines()) == 2
    assert "'=1+1" in command(told, "export", "--format=csv").stdout
    page = tmp_path / "page.html"
    written = command(told, "export", "--format=html", "--student=tc-ada", f"--output={page}")
    assert written.returncode == 0, written.stderr
    text = page.read_text()
    assert "&lt;b&gt;words" in text
    assert "analysis has read it" in text
    assert "This record is as it was written" in text
    assert not any(mark in text for mark in ("http://", "https://", "<script", "src="))


def test_each_record_is_as_the_schema_says(told: AuditLog) -> None:
    """The published schema holds for what is written."""
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

    from lo_kernel.kernel import audit

    folder = Path(audit.__file__).parents[1] / "schemas"
    validator = Draft202012Validator(json.loads((folder / "audit-1.json").read_text()))
    told.append("gap", {"reason": "a test"})
    for line in lines(told):
        validator.validate(json.loads(line))
