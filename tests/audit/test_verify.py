"""Each kind of tampering is named, at its place; what is whole is called whole; a crash is told from both."""

import fcntl
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from switchboard.audit.anchors import Anchor, AnchorsAway, newest, read_anchors
from switchboard.audit.chain import Chain, Link
from switchboard.audit.judging import Scanned, judge
from switchboard.audit.reading import blocks_of, in_order
from switchboard.audit.scanning import joined, scan
from switchboard.audit.verify import as_json, as_text, verify
from tests.support.chains import KEY, chain_id, chain_of, decision, found, verified, written

OTHER_KEY = b"another-key-of-the-tests-0123456789ab"


@pytest.fixture
def lines():
    """A chain of ten records: opening, eight decisions, closing."""
    return chain_of(8)


def test_a_whole_chain(tmp_path, lines):
    verdict = verified(written(tmp_path / "a", lines))
    assert found(verdict) == []
    assert (verdict.records, verdict.files, len(verdict.chains)) == (10, 1, 1)
    assert (verdict.chains[0].first, verdict.chains[0].last, verdict.chains[0].state) == (1, 10, "closed")


def edited(line: bytes) -> bytes:
    return line.replace(b'"outcome":"allowed"', b'"outcome":"denied"')


@pytest.mark.parametrize(
    ("tamper", "problems"),
    [
        pytest.param(lambda x: [*x[:4], edited(x[4]), *x[5:]], [("edited", 5, 5)], id="edited"),
        pytest.param(lambda x: [*x[:3], *x[4:]], [("removed", 4, 4)], id="removed"),
        pytest.param(lambda x: [*x[:3], *x[6:]], [("removed", 4, 4)], id="three removed"),
        pytest.param(lambda x: x[1:], [("removed", 1, 1)], id="the opening removed"),
        pytest.param(lambda x: [*x[:3], x[4], x[3], *x[5:]], [("reordered", 4, 5)], id="reordered"),
        pytest.param(lambda x: [*x[:2], *x[5:8], *x[2:5], *x[8:]], [("reordered", 3, 6)], id="moved"),
        pytest.param(lambda x: [*x[:6], x[2], *x[6:]], [("duplicated", 7, 3)], id="duplicated"),
        pytest.param(lambda x: [*x[:5], *x[2:5], *x[5:]], [("duplicated", 6, 3)], id="three duplicated"),
        pytest.param(lambda x: [*x[:4], decision(99), *x[4:]], [("inserted", 5, None)], id="inserted without a chain"),
        pytest.param(lambda x: [*x[:4], b"", *x[4:]], [("inserted", 5, None)], id="an empty line inserted"),
        pytest.param(lambda x: [*x[:4], edited(x[3]), *x[4:]], [("inserted", 5, None)], id="a changed copy inserted"),
        pytest.param(
            lambda x: [*x[:4], edited(x[4]), b"x", *x[5:]], [("edited", 5, 5), ("inserted", 6, None)], id="both"
        ),
        pytest.param(
            lambda x: [*x[:4], edited(x[4]), *x[7:]], [("edited", 5, 5), ("removed", 6, 6)], id="edited and removed"
        ),
        pytest.param(lambda x: x[:-1], [("unclosed", 9, 9)], id="the closing removed"),
        pytest.param(lambda x: x[:4], [("unclosed", 4, 4)], id="cut"),
        pytest.param(
            lambda x: [*x[:9], x[9].replace(b"close", b"cloze")],
            [("edited", 10, 10), ("unclosed", 10, 9)],
            id="the closing edited",
        ),
        pytest.param(lambda x: [b"x", *x], [("inserted", 1, None)], id="inserted at the begin"),
        pytest.param(lambda x: [*x, b"x"], [("inserted", 11, None)], id="inserted at the end"),
        pytest.param(lambda x: [], [("empty", None, None)], id="emptied"),
    ],
)
def test_tampering(tmp_path, lines, tamper, problems):
    assert found(verified(written(tmp_path / "a", tamper(lines)))) == problems


def test_no_byte_of_a_record_can_be_changed(tmp_path, lines):
    """Each one in turn, of a record that begins a run and of one that continues it."""
    for place in (0, 4):
        for number in range(len(lines[place])):
            changed = bytearray(lines[place])
            changed[number] ^= 1
            file = written(tmp_path / "a", [*lines[:place], bytes(changed), *lines[place + 1 :]])
            assert found(verified(file)) == [("edited", place + 1, place + 1)], number


def test_a_record_of_somebody_elses_key(tmp_path, lines):
    """Whoever has no key can make whole chains, but none that fits."""
    forged = chain_of(3, key=OTHER_KEY)
    assert {kind for kind, *_ in found(verified(written(tmp_path / "a", [*lines, *forged])))} == {"inserted"}
    assert {kind for kind, *_ in found(verified(written(tmp_path / "b", forged)))} == {"inserted"}


def test_a_changed_key(tmp_path):
    """Chains from before and after a change of the key, with both."""
    file = written(tmp_path / "a", [*chain_of(3, key=OTHER_KEY), *chain_of(3)])
    assert found(verify([file], [KEY, OTHER_KEY])) == []
    assert found(verify([file], [KEY])) != []


def test_two_who_share_a_key_cannot_rewrite_one_chain(tmp_path):
    """A second record with the number of the first, with a hash that fits: nobody but a holder of the key can do it."""
    chain = Chain(KEY)
    one, link = chain.seal(decision(1), Link())
    _, end = chain.seal(decision(2), link)
    other, _ = chain.seal(decision(3), link)
    three, _ = chain.seal(decision(4), end)
    file = tmp_path / "a"
    file.write_bytes(one + other + three)
    assert ("edited", 3, 3) in found(verified(file))


# Rotated sets


def test_a_rotated_set_in_any_order(tmp_path, lines):
    names = [
        written(tmp_path / "audit.jsonl.2", lines[:3]),
        written(tmp_path / "audit.jsonl.1", lines[3:8]),
        written(tmp_path / "audit.jsonl", lines[8:]),
    ]
    for files in (names, names[::-1], [names[1], names[2], names[0], names[1]]):
        verdict = verified(*files)
        assert found(verdict) == []
        assert (verdict.files, verdict.records) == (3, 10)
    assert in_order(names[::-1]) == names


def test_a_file_that_is_missing(tmp_path, lines):
    files = [written(tmp_path / f"{number}", lines[begin : begin + 3]) for number, begin in enumerate((0, 3, 6))]
    written(tmp_path / "3", lines[9:])
    assert found(verified(files[0], files[2], tmp_path / "3")) == [("removed", 1, 4)]
    assert found(verified(*files)) == [("unclosed", 3, 9)]
    begin = verified(*files[1:], tmp_path / "3")
    assert found(begin) == [("removed", 1, 1)]
    assert "or the file that holds them was not given" in begin.problems[0].text


def test_what_is_too_old_to_be_kept_may_be_missing(tmp_path, lines):
    rest = written(tmp_path / "a", lines[3:])
    first = json.loads(lines[3])["time"]
    assert found(verified(rest, since=first)) == []
    # The oldest record that is there is younger than what has to be kept: then something is missing.
    assert found(verified(rest, since="2026-11-19T00:00:00.000Z")) == [("removed", 1, 1)]


def test_several_processes_in_one_stream(tmp_path):
    """Their chains interleave, as in the collected output of several pods."""
    one, two = chain_of(5), chain_of(5)
    mixed = [line for pair in zip(one, two, strict=True) for line in pair]
    assert found(verified(written(tmp_path / "a", mixed))) == []
    del mixed[5]
    assert found(verified(written(tmp_path / "b", mixed))) == [("removed", 7, 3)]


# Crashes


def test_a_torn_last_line_is_a_crash(tmp_path, lines):
    """It has no line end, which a line that somebody has edited would have; the chain is unclosed, no more."""
    for length in (1, 50, len(lines[4])):
        verdict = verified(written(tmp_path / "a", [*lines[:4], lines[4][:length]], end=b""))
        assert found(verdict) == [("unclosed", 4, 4)]
        assert verdict.notes == [f"{tmp_path / 'a'}:5: torn: the end of the line is missing, as after a crash"]
    assert found(verified(written(tmp_path / "b", [*lines[:4], lines[4][:50]]))) == [
        ("edited", 5, 5),
        ("unclosed", 5, 4),
    ]


def test_the_next_process_tells_of_the_torn_line(tmp_path, lines):
    torn = lines[4][:50]
    after = chain_of(2, torn=50)
    verdict = verified(written(tmp_path / "a", [*lines[:4], torn, *after]))
    assert found(verdict) == [("unclosed", 4, 4)]
    assert verdict.notes == [f"{tmp_path / 'a'}:5: torn by a crash, as the record after it says"]
    # Another length than it found is another line.
    assert ("edited", 5, 5) in found(verified(written(tmp_path / "b", [*lines[:4], torn + b"x", *after])))


def test_a_torn_line_that_belongs_to_no_chain(tmp_path, lines):
    assert found(verified(written(tmp_path / "a", [*lines, b'{"time":'], end=b""))) == [("unclosed", 11, None)]
    assert found(verified(written(tmp_path / "b", [b'{"time":'], end=b""))) == [("unclosed", 1, None)]


def test_a_file_that_is_being_written(tmp_path, lines):
    """Its process holds a lock; there, a chain without an end and half a line are as they should be."""
    file = written(tmp_path / "a", [*lines[:4], lines[4][:30]], end=b"")
    with file.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        verdict = verified(file)
        assert found(verdict) == []
        assert verdict.chains[0].state == "open"
        assert "is open, and its process is running" in as_text(verdict)
        tampered = written(tmp_path / "b", [*lines[:2], *lines[3:5]])
        with tampered.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            assert found(verified(tampered)) == [("removed", 3, 3)]
    assert found(verified(file)) == [("unclosed", 4, 4)]


# Anchors


def anchor(line: bytes, **changes: object) -> Anchor:
    record = json.loads(line)
    known = {name: record[name] for name in ("chain", "seq", "hash", "time")}
    return Anchor(**{**known, "host": "h", **changes})


def test_what_was_cut_before_the_last_anchor(tmp_path, lines):
    anchors = [anchor(lines[2]), anchor(lines[7])]
    file = written(tmp_path / "a", lines[:5])
    verdict = verified(file, anchors=anchors)
    assert found(verdict) == [("cut", 5, 5)]
    assert "records 6 to 8 of chain" in verdict.problems[0].text
    assert found(verified(written(tmp_path / "b", lines), anchors=anchors)) == []
    # Cut behind the last anchor: as after a crash.
    assert found(verified(written(tmp_path / "c", lines[:9]), anchors=anchors)) == [("unclosed", 9, 9)]


def test_whole_missing_chains(tmp_path, lines):
    gone = chain_of(5)
    verdict = verified(written(tmp_path / "a", lines), anchors=[anchor(lines[9]), anchor(gone[4], host="pod-7")])
    assert found(verdict) == [("missing", None, None)]
    assert verdict.problems[0].chain == chain_id(gone[0])
    assert "of pod-7, which had 5 records at 2026-11-20T10:00:00.003Z" in verdict.problems[0].text
    assert found(verified(tmp_path / "a", anchors=[anchor(gone[4])], since="2026-11-21T00:00:00.000Z")) == []


def test_an_anchor_of_another_record(tmp_path, lines):
    assert found(verified(written(tmp_path / "a", lines), anchors=[anchor(lines[9], hash="0" * 64)])) == [
        ("edited", 10, 10)
    ]


def test_a_file_of_anchors(tmp_path, lines):
    file = tmp_path / "anchors"
    file.write_bytes(b"".join(anchor(line).as_json() + b"\n" for line in (lines[2], lines[7], lines[4])))
    assert [one.seq for one in newest(read_anchors(file)).values()] == [8]
    torn = file.read_bytes()[:-20]
    file.write_bytes(torn)
    assert [one.seq for one in read_anchors(file)] == [3, 8]
    file.write_bytes(b"")
    assert read_anchors(file) == []
    for content in (b"x\n", b"[]\n", b"{}\n", b'{"chain":"x"}\n'):
        file.write_bytes(content)
        with pytest.raises(AnchorsAway, match="no line of it is an anchor"):
            read_anchors(file)
    with pytest.raises(AnchorsAway, match="No such file"):
        read_anchors(tmp_path / "nowhere")


# The report


def test_the_text_names_the_first_problem_first(tmp_path, lines):
    verdict = verified(written(tmp_path / "a", [*lines[:2], *lines[3:5], edited(lines[5]), *lines[6:]]))
    text = as_text(verdict).splitlines()
    assert text[0] == f"{tmp_path / 'a'}:3: removed: record 3 of chain {chain_id(lines[0])}, before this line"
    assert text[1].startswith(f"{tmp_path / 'a'}:5: edited: record 6 of chain")
    assert text[2] == f"2 problems: 8 records, 1 chain, 1 file, {(tmp_path / 'a').stat().st_size / 1e6:.1f} MB"


def test_many_problems_are_not_all_shown(tmp_path, lines):
    text = as_text(verified(written(tmp_path / "a", [*lines, *[b"x"] * 50])))
    assert "and 30 more" in text
    assert len(text.splitlines()) == 22


def test_the_report_for_machines(tmp_path, lines):
    told = json.loads(as_json(verified(written(tmp_path / "a", lines[:4]))))
    assert told["problems"] == [
        {
            "kind": "unclosed",
            "text": f"crash or cut, after record 4 of chain {chain_id(lines[0])}",
            "file": str(tmp_path / "a"),
            "line": 4,
            "chain": chain_id(lines[0]),
            "seq": 4,
        }
    ]
    assert told["chains"] == [{"chain": chain_id(lines[0]), "first": 1, "last": 4, "state": "unclosed"}]


def test_a_wrong_key_is_suspected_and_costs_no_memory(tmp_path):
    lines = chain_of(2000)
    verdict = verify([written(tmp_path / "a", lines)], [OTHER_KEY])
    assert (len(verdict.problems), verdict.problems[0].kind, verdict.problems[0].line) == (1000, "inserted", 1)
    assert verdict.notes == [
        "1,002 more lines are no records of ours",
        "no record fits the key: were they written with another one, or with none?",
    ]


# Properties


@st.composite
def logs(draw: st.DrawFn) -> list[list[bytes]]:
    """Chains one after another, all closed, cut into files anywhere."""
    lines = [line for count in draw(st.lists(st.integers(0, 6), min_size=1, max_size=3)) for line in chain_of(count)]
    cuts = sorted(draw(st.sets(st.integers(1, len(lines) - 1), max_size=3)))
    return [lines[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(lines)], strict=True)]


def verdict_on(folder: Path, files: list[list[bytes]], **how: object):
    for old in folder.iterdir():
        old.unlink()
    return verified(*(written(folder / str(number), lines) for number, lines in enumerate(files)), **how)


def places(files: list[list[bytes]]) -> list[tuple[int, int]]:
    return [(file, line) for file, lines in enumerate(files) for line in range(len(lines))]


def seq_of(line: bytes) -> int:
    return int(json.loads(line)["seq"])


property_of_logs = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@property_of_logs
@given(files=logs(), data=st.data())
def test_what_is_whole_is_called_whole(tmp_path, files, data):
    shuffled = data.draw(st.permutations(files))
    verdict = verdict_on(tmp_path, shuffled)
    assert found(verdict) == []
    assert verdict.records == sum(map(len, files))
    anchors = [anchor(line) for lines in files for line in lines]
    assert found(verdict_on(tmp_path, shuffled, anchors=data.draw(st.lists(st.sampled_from(anchors))))) == []


@property_of_logs
@given(files=logs(), data=st.data())
def test_every_changed_byte_is_named(tmp_path, files, data):
    file, number = data.draw(st.sampled_from(places(files)))
    line = files[file][number]
    place = data.draw(st.integers(0, len(line) - 1))
    byte = data.draw(st.integers(0, 255))
    assume(byte not in (line[place], 10))
    files[file][number] = line[:place] + bytes([byte]) + line[place + 1 :]
    problems = verdict_on(tmp_path, files).problems
    here = [one for one in problems if (one.file, one.line) == (str(tmp_path / str(file)), number + 1)]
    assert here[0].kind in ("edited", "inserted")
    # Without a neighbour of its chain in the same file, only what it says of itself tells which record it was.
    if len(files) == 1 or place < line.index(b',"chain"'):
        assert (problems[0], here[0].kind, here[0].seq) == (here[0], "edited", seq_of(line))


@property_of_logs
@given(files=logs(), data=st.data())
def test_every_removed_record_is_named(tmp_path, files, data):
    file, number = data.draw(st.sampled_from(places(files)))
    line = files[file].pop(number)
    closing = b'"action":"audit.close"' in line
    opening_of_nothing = closing and seq_of(line) == 1
    assert not opening_of_nothing
    first = verdict_on(tmp_path, files).problems[0]
    assert (first.kind, first.seq) == (("unclosed", seq_of(line) - 1) if closing else ("removed", seq_of(line)))
    assert first.chain == chain_id(line)


@property_of_logs
@given(files=logs(), data=st.data())
def test_every_repeated_record_is_named(tmp_path, files, data):
    file, number = data.draw(st.sampled_from(places(files)))
    line = files[file][number]
    other, where = data.draw(st.sampled_from(places(files)))
    files[other].insert(where, line)
    problems = verdict_on(tmp_path, files).problems
    assert ("duplicated", seq_of(line), chain_id(line)) in [(one.kind, one.seq, one.chain) for one in problems]
    # Of two in different files, the one that is in its place may be taken for the second: then it is out of order too.
    assert len(problems) == 1 or len(files) > 1


@property_of_logs
@given(files=logs(), data=st.data())
def test_every_exchange_is_named(tmp_path, files, data):
    one, two = data.draw(st.lists(st.sampled_from(places(files)), min_size=2, max_size=2, unique=True))
    a, b = files[one[0]][one[1]], files[two[0]][two[1]]
    assume(chain_id(a) == chain_id(b))
    # If each file holds one record of the chain, it is the files that have changed places, and their names say nothing.
    assume(one[0] == two[0] or [chain_id(x) for n in (one[0], two[0]) for x in files[n]].count(chain_id(a)) > 2)
    files[one[0]][one[1]], files[two[0]][two[1]] = b, a
    first = verdict_on(tmp_path, files).problems[0]
    assert (first.kind, first.chain) == ("reordered", chain_id(a))


@property_of_logs
@given(files=logs(), data=st.data(), foreign=st.binary(max_size=400).filter(lambda text: b"\n" not in text))
def test_every_inserted_line_is_named(tmp_path, files, data, foreign):
    file, number = data.draw(st.sampled_from(places(files)))
    files[file].insert(number, foreign)
    (problem,) = verdict_on(tmp_path, files).problems
    assert (problem.kind, problem.file, problem.line) == ("inserted", str(tmp_path / str(file)), number + 1)


@property_of_logs
@given(files=logs(), data=st.data())
def test_every_cut_is_named_if_it_is_anchored(tmp_path, files, data):
    """Cut at any byte: what ends in the middle is unclosed; with anchors, also what ends between two chains."""
    lines = [line for part in files for line in part]
    content = b"\n".join(lines) + b"\n"
    cut = data.draw(st.integers(0, len(content) - 1))
    (tmp_path / "log").write_bytes(content[:cut])
    kinds = {kind for kind, *_ in found(verified(tmp_path / "log"))}
    between = content[:cut].endswith(b"\n") and b'"action":"audit.close"' in content[:cut].splitlines()[-1]
    assert kinds == (set() if between else {"unclosed"} if cut else {"empty"})
    anchors = [anchor(line) for line in lines]
    kinds = {kind for kind, *_ in found(verified(tmp_path / "log", anchors=anchors))}
    assert kinds & {"cut", "missing"}
    assert kinds <= {"cut", "missing", "unclosed"}


@property_of_logs
@given(files=logs(), size=st.integers(1, 4000))
def test_blocks_make_no_difference(tmp_path, files, size):
    lines = [line for part in files for line in part]
    file = written(tmp_path / "log", [*lines[:3], b"foul", *lines[3:]])
    blocks = list(blocks_of(file, size))
    assert b"".join(block.read() for block in blocks) == file.read_bytes()
    whole = joined([scan(block, [KEY]) for block in blocks_of(file)])
    parts = joined([scan(block, [KEY]) for block in blocks])
    assert parts == whole
    assert found(judge([Scanned("log", parts, 0)])) == [("inserted", min(4, len(lines) + 1), None)]
