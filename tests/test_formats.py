"""File formats: what others write is read as they meant it, and what can't be used is named."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from event_files import compressed, study_event, study_log, study_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lo_kernel.engine.files import Deadline, EventFile
from lo_kernel.engine.formats import FORMATS, detect, fingerprint, opened, study_line
from lo_kernel.engine.formats.base import whole_of
from lo_kernel.engine.formats.objects import array_items
from lo_kernel.engine.formats.source import FingerprintMaker, numbered_lines
from lo_kernel.engine.formats.study_log import StudyLog
from lo_kernel.engine.report import ReplayReport
from lo_kernel.errors import EventError


def read(path: Path, name: str = "auto") -> tuple[list[tuple[str, dict[str, Any]]], list[tuple[int, str]]]:
    """Learner and event of each record, and line and reason of each bad one."""
    kind = detect(path) if name == "auto" else FORMATS[name]
    format = kind(mark={"file": "f" * 32}, time=5.0)
    source = opened(path)
    good, bad = [], []
    for line, record in format.records(source):
        try:
            parsed = format.parse(record)
        except EventError as error:
            bad.append((line, error.reason))
            continue
        if parsed is not None:
            time, sender, body, raw = parsed
            assert json.loads(raw) == body, "the text is that of the body"
            assert "auth" not in body
            good.append((sender.student, sender.event(body, time)))
    source.close()
    return good, bad


@pytest.mark.parametrize("compact", [True, False])
def test_a_study_log_is_read_as_it_was_written(tmp_path: Path, compact: bool) -> None:
    """Client, server and metadata of each line come back as they were, however the JSON is spaced."""
    path = study_log(tmp_path / "x.study.log", range(50), compact=compact)
    good, bad = read(path)
    assert detect(path).name == "study_log"
    assert bad == []
    assert [event for _, event in good] == [study_event(n, f"u{n % 3}") for n in range(50)]
    assert good[4][0] == "tc-testcase-u1"


def test_what_we_write_is_what_they_write(tmp_path: Path) -> None:
    """A study log of ours has sorted keys, a tab and a UTC time, and reads as the same events."""
    events = [study_event(n) for n in range(5)]
    line = study_line(events[3])
    text, _, stamp = line.decode().rpartition("\t")
    assert json.loads(text) == events[3]
    assert list(json.loads(text)) == ["client", "metadata", "server"]
    assert stamp == "2023-11-14T22:13:23.250000\n"
    path = tmp_path / "x"
    path.write_bytes(b"".join(map(study_line, events)))
    assert [event for _, event in read(path)[0]] == events


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
_values = st.recursive(
    st.none() | st.booleans() | _numbers | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts | st.just("auth"), inner, max_size=3),
    max_leaves=8,
)
_bodies = st.dictionaries(_texts, _values, max_size=4)
_events = st.tuples(_bodies, st.sampled_from(["u0", 'u"}1', "{u2"]), st.booleans())


@given(st.lists(_events, min_size=1, max_size=6))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_study_log_comes_back(tmp_path: Path, events: list[Any]) -> None:
    """Whatever is in the events, in whatever spacing: learners, bodies and metadata are right."""
    written = []
    for number, (more, learner, compact) in enumerate(events):
        more = {name: value for name, value in more.items() if name not in ("auth", "source", "event", "i")}
        event = study_event(number, learner, **more)
        written.append((event, study_text(event, compact=compact)))
    path = tmp_path / "any.study.log"
    path.write_text("".join(text for _, text in written), newline="")
    good, bad = read(path, "study_log")
    assert bad == []
    assert [event for _, event in good] == [event for event, _ in written]


def test_lines_read_together_are_what_each_is_by_itself(tmp_path: Path) -> None:
    """Events taken from many lines at once, damaged ones among them, are those of each line read alone."""
    chance = random.Random(4)
    lines = [study_line(study_event(n, f"u{n % 3}")).rstrip(b"\n") for n in range(60)]
    lines += [line.replace(b'"ip":"', b'"ip":"10.0.0.%d' % (n % 9)) for n, line in enumerate(lines)]
    lines += [line.replace(b'"event"', b'"auth":{"safe_user_id":"tc-x"},"event"') for line in lines[:5]]
    for line in [lines[chance.randrange(120)] for _ in range(2000)]:
        at = chance.choice([len(line) - chance.randrange(60), chance.randrange(len(line))])
        mark = bytes([chance.choice(b'{}[]",:_\t\r0179eatx \\\xff')])
        damaged = chance.choice([line[:at] + mark + line[at + 1 :], line[:at] + mark + line[at:], line[:at]])
        lines += [damaged, line, b""] if chance.random() < 0.3 else [damaged]
    path = tmp_path / "x.study.log"
    path.write_bytes(b"\n".join(lines))
    report = ReplayReport(files=[str(path)])
    file, together = EventFile(path, StudyLog(time=1.0), report, Deadline(60)), []
    for arrivals in file.arrivals(50):
        together += [(n, by.encoded, body, raw, time) for by, body, raw, time, n in arrivals]
    file.close()
    alone, bad, time, number = [], 0, 1.0, 0
    for record in lines:
        if record and record != b"\r":
            number += 1
            try:
                try:
                    parsed = StudyLog(time=time).parse(record)
                except EventError as error:
                    parsed = StudyLog(time=time).parse(whole_of(record, error))
            except EventError:
                bad += 1
            else:
                assert parsed is not None
                time, sender, body, raw = parsed
                alone.append((number, sender.encoded, body, raw, time))
    assert together == alone
    assert sum(each.count for each in report.skipped.values()) == bad
    assert min(len(alone), bad) > 500, "both are there"


def test_bad_lines_are_named_and_passed_over(tmp_path: Path) -> None:
    """Each bad line costs itself alone, and has a reason; the line numbers are those of the file."""
    good = study_text(study_event(1))
    nobody = study_event(2)
    del nobody["client"]["auth"], nobody["metadata"]["auth"]
    path = tmp_path / "x.study.log"
    path.write_bytes(
        good.encode() + b"\n" + b"{torn\t2023\n" + b"[1]\t2023\n" + b'{"a":1}\t2023\n' + b"\xff\xfe\n"
        + study_text(nobody).encode() + good.encode().rstrip()
    )  # fmt: skip
    found, bad = read(path)
    assert len(found) == 2
    assert bad == [
        (3, "not_json"),
        (4, "not_an_object"),
        (5, "not_an_event"),
        (6, "not_json"),
        (7, "no_identity"),
    ]


@pytest.mark.parametrize("how", ["gz", "zst"])
def test_compressed_files_are_read_whatever_their_name(tmp_path: Path, how: str) -> None:
    """gzip and zstd, also in several parts one behind the other, are known by their first bytes."""
    path = compressed(study_log(tmp_path / "x.study.log", range(400)), how)
    assert detect(path).name == "study_log"
    assert len(read(path)[0]) == 400


@pytest.mark.parametrize("how", ["gz", "zst"])
def test_a_torn_compressed_file_gives_what_is_readable(tmp_path: Path, how: str) -> None:
    """A compressed file that ends in the middle says so, and is no reason to fail."""
    path = compressed(study_log(tmp_path / "x.study.log", range(9000)), how)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    source = opened(path)
    lines = sum(1 for _ in numbered_lines(source))
    assert lines > 4000
    if how == "gz":  # a zstd frame that ends early says nothing of it
        assert "can't be read any further" in source.problem
    source.close()


def test_client_events_know_who_sent_them(tmp_path: Path) -> None:
    """In lines as clients send them, an identity and locked fields hold for the lines below."""
    path = tmp_path / "x.jsonl"
    lines: list[Any] = [
        {"event": "before", "timestamp": 1_700_000_000_000},
        {"event": "metadata_finished", "user_id": "a", "source": "s1"},
        {"event": "lock_fields", "fields": {"source": "s2", "doc_id": "d", "auth": "root"}},
        {"event": "keystroke", "metadata": {"ts": 1_700_000_001_500}},
        [{"event": "one", "user_id": "b"}, {"event": "two"}, 3],
        {"no": "event"},
        study_event(7, "c"),
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    good, bad = read(path)
    assert detect(path).name == "jsonl"
    assert [who for who, _ in good] == [
        "guest-ffffffffffffffff", "tc-testcase-a", "tc-testcase-a", "tc-testcase-b", "tc-testcase-b",
        "tc-testcase-c",
    ]  # fmt: skip
    assert [event["client"].get("source") for _, event in good[:4]] == [None, "s1", "s2", "s2"]
    assert good[2][1]["client"]["doc_id"] == "d"
    assert [event["server"]["time"] for _, event in good[:3]] == [1.7e9, 1.7e9, 1_700_000_001.5]
    assert bad == [(5, "not_an_object"), (6, "no_event")]


def test_archive_lines_are_read(tmp_path: Path) -> None:
    """The lines of another workspace's archive come in with their senders; erased ones don't."""
    from lo_kernel.engine.events import Sender, identify

    identity = identify({"user_id": "u0"})
    assert identity is not None
    by = Sender(identity, "s", {"ip": "1"}, {"doc_id": "d"}, {"m": 1}, {"stream": "x"}).encoded.decode()
    path = tmp_path / "events-000000000001.jsonl"
    path.write_text(
        f'{{"n":1,"t":2.5,"s":9,"by":{by},"body":{{"event":"x" }}}}\n{{"n":2,"t":2.5,"gone":9.0}}\n'
        '{"n":3,"t":1.0,"by":{},"body":{}}\n'
    )
    good, bad = read(path)
    assert detect(path).name == "archive"
    assert bad == [(3, "no_identity")]
    assert good[0][1]["client"]["doc_id"] == "d"
    assert good[0][1]["server"] == {"time": 2.5, "ip": "1"}


def test_times_deeper_in_server_tell_senders_apart(tmp_path: Path) -> None:
    """What a server says about where an event came from stays with it; only its own time is the event's."""
    path = tmp_path / "a.study.log"
    wheres: list[dict[str, Any]] = [
        {"a": {"time": 1}, "time": 5.5},
        {"a": {"time": 2}, "time": 5.5},
        {"time": 6.5, "a": {"time": 2}},
        {"a": {"time": 3}},
        {"a": {"time": 4}},
    ]
    path.write_text(
        "".join(
            json.dumps({"client": {"auth": {"safe_user_id": "x"}}, "metadata": {}, "server": where})
            + "\t2020-01-01T00:00:00\n"
            for where in wheres
        )
    )
    good, bad = read(path)
    assert bad == []
    assert [event["server"] for _, event in good] == [{"time": 1577836800.0, **where} for where in wheres]


def statement(number: int, **more: Any) -> dict[str, Any]:
    """An xAPI statement."""
    return {
        "id": f"id-{number}",
        "actor": {"name": "Ann Example", "mbox": "mailto:ann@example.org"},
        "verb": {"id": "http://adlnet.gov/expapi/verbs/initialized"},
        "object": {"id": "https://example.org/video", "definition": {"name": {"en": "[{"}}},
        "timestamp": "2020-02-10T11:39:12.979Z",
        **more,
    }


@pytest.mark.parametrize("shape", ["array", "pretty", "lines", "response"])
def test_xapi_statements_become_events(tmp_path: Path, shape: str) -> None:
    """Verb, object and time are kept; the learner goes by the hash that the standard has for an address."""
    many = [statement(n) for n in range(40)]
    path = tmp_path / "statements.json"
    path.write_text(
        {
            "array": json.dumps(many),
            "pretty": "\ufeff" + json.dumps(many, indent=2),
            "lines": "\n".join(map(json.dumps, many)),
            "response": json.dumps({"statements": many, "more": ""}),
        }[shape]
    )
    good, bad = read(path)
    assert detect(path).name == "xapi"
    assert bad == []
    assert len(good) == 40
    who, event = good[5]
    assert who == "xapi-" + hashlib.sha1(b"mailto:ann@example.org").hexdigest()
    assert event["client"]["event"] == "initialized"
    assert event["client"]["id"] == "id-5"
    assert event["server"]["time"] == 1581334752.979
    assert event["client"]["source"] == "xapi"
    assert "ann@example.org" not in json.dumps(event)
    assert "Ann" not in json.dumps(event)


def test_statements_without_actor_or_verb_are_named(tmp_path: Path) -> None:
    """What can't be used of statements is left out with a reason."""
    path = tmp_path / "x.json"
    group = statement(2, actor={"objectType": "Group", "member": []})
    account = statement(3, actor={"account": {"homePage": "https://x", "name": "s-17"}})
    path.write_text(json.dumps([statement(0), statement(1, verb={}), group, account, 7], indent=1))
    good, bad = read(path)
    assert [reason for _, reason in bad] == ["no_verb", "no_actor", "not_an_object"]
    assert good[1][0] == "xapi-s-17"


def test_a_damaged_item_of_an_array_costs_itself(tmp_path: Path) -> None:
    """After a broken statement, the array goes on with the next one."""
    texts = json.dumps([statement(n) for n in range(30)], indent=2).replace('"id-7"', '"id-7')
    path = tmp_path / "x.json"
    path.write_text(texts)
    good, bad = read(path)
    assert [event["client"]["id"] for _, event in good] == [f"id-{n}" for n in range(30) if n != 7]
    assert [reason for _, reason in bad] == ["not_json"]


@given(st.lists(_values, max_size=8), st.integers(1, 40), st.sampled_from([None, 1]))
@settings(max_examples=200, deadline=None)
def test_an_array_is_the_same_in_pieces(items: list[Any], size: int, indent: int | None) -> None:
    """However the bytes of an array are cut, its items are those of the whole."""
    data = json.dumps(items, indent=indent).encode()
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    assert [item for _, item in array_items(chunks)] == items


def test_tables_are_read_by_their_columns(tmp_path: Path) -> None:
    """Learner, time and event are found by usual names; a row that doesn't fit is named."""
    path = tmp_path / "x.csv"
    path.write_text(
        'Student_ID,Action,Time,score\nann,open,2020-01-01T00:00:00,"1,5"\nbob,close,1,2,3\n,x,,\n'
    )
    good, bad = read(path)
    assert detect(path).name == "csv"
    assert bad == [(3, "not_a_row"), (4, "no_identity")]
    who, event = good[0]
    assert who == "table-ann"
    assert event["server"]["time"] == 1577836800.0
    assert {**event["client"], "auth": None} == {
        "event": "open", "timestamp": "2020-01-01T00:00:00", "score": "1,5", "source": "table", "auth": None,
    }  # fmt: skip
    tsv = tmp_path / "x.tsv"
    tsv.write_text("user_id\tevent\ntc-a\tx\n")
    assert detect(tsv).name == "tsv"
    assert read(tsv)[0][0][0] == "tc-a"


@pytest.mark.parametrize(
    "content", [b"hello\nworld\n", b"\x00\x01\x02", b'{"a": 1}\n', b"a,b\n1,2\n", b"<xml/>"]
)
def test_what_is_no_event_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file in no known format is an error that says what was expected, and how to say it oneself."""
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(EventError, match="format=") as caught:
        detect(path)
    assert caught.value.reason == "unknown_format"


def test_a_line_without_end_costs_no_memory() -> None:
    """A record of more than 16 MiB is left out, and what follows is read."""
    chunks = [b"x" * (1 << 20)] * 20 + [b"\n{}\n"]
    found = [(number, len(line)) for number, line in numbered_lines(chunks)]
    assert found == [(1, (16 << 20) + 1), (2, 2)]


def test_a_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    """A compressed copy is the same content, and a file that has grown is known by what it was."""
    path = study_log(tmp_path / "a", range(3000))
    first = fingerprint(path, {})
    assert fingerprint(compressed(path, "gz"), {}).digest == first.digest
    longer = study_log(tmp_path / "b", range(3500))
    grown = fingerprint(longer, {first.length: {first.digest}})
    assert grown.grown_from == [first.digest]
    assert fingerprint(longer, {first.length: {"0" * 32}}).grown_from == []
    assert fingerprint(path, {first.length: {first.digest}}).grown_from == []


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20, (7 << 20) + 5])
def test_a_fingerprint_is_the_same_however_it_is_made(tmp_path: Path, size: int) -> None:
    """Read in one go or written bit by bit; and each content that begins with it is known to."""
    content = random.Random(size).randbytes(size)
    path, longer = tmp_path / "x", tmp_path / "y"
    path.write_bytes(content)
    first = fingerprint(path, {})
    maker, chance, at = FingerprintMaker(), random.Random(1), 0
    while at < size:
        part = chance.choice([1, 1000, 300_000, 1 << 20, 3_000_000])
        maker.update(content[at : at + part])
        at += part
    made = maker.done()
    assert (made.digest, made.length) == (first.digest, first.length)
    for more in (b"", b"x", b"x" * (1 << 20), b"x" * (2_500_000)):
        longer.write_bytes(content + more)
        grown = fingerprint(longer, {size: {first.digest}, size // 2: {"0" * 32}})
        assert grown.length == size + len(more)
        assert grown.grown_from == ([first.digest] if more and size else [])
        assert (grown.digest == first.digest) == (not more)


def test_a_line_is_like_earlier_ones_only_where_all_but_the_body_is(tmp_path: Path) -> None:
    """What stands between a learner and the body, or behind the time, is looked at."""
    line = study_line(study_event(1)).removesuffix(b"\n")
    head, _, rest = line.partition(b"},")
    text, _, stamp = line.rpartition(b"\t")
    others = {
        head + b"};" + rest: False,
        head + b"}1," + rest: False,
        head + b"}{" + rest: False,
        head + b"} , " + rest: True,
        text + b"\tx\t" + stamp: False,
        text: True,  # the time that counts is in the event
        text[:-1] + b"\t" + stamp: False,
        text + b"}\t" + stamp: False,
    }
    tail = text[text.index(b',"metadata":') :] + b"\t" + stamp
    for body in (b"}12", b"}null", b"} true", b'}"a"', b'}"a,b"', b"}[1]", b'}{"event":"x"}', b"", b"}"):
        others[head + body + tail] = False
    for other, good in others.items():
        path = tmp_path / "x.study.log"
        path.write_bytes(b"\n".join([line, line, other, line]) + b"\n")
        report = ReplayReport(files=[str(path)])
        file = EventFile(path, StudyLog(time=1.0), report, Deadline(60))
        bodies = [json.loads(raw) for found in file.arrivals(2) for _, _, raw, _, _ in found]
        file.close()
        told = [first for entry in report.skipped.values() for first in entry.first]
        assert [f"{path}, line 3:" in first for first in told] == ([] if good else [True]), told
        assert bodies == [bodies[0]] * (4 if good else 3)
