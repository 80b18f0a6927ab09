"""The map folder: what is written is read, adding is cheap, and damage is refused by name."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vpr.maps import table as table_module
from vpr.maps.folder import (
    MapError,
    PartDigest,
    PartWriter,
    begin_revision,
    commit,
    open_part,
    read_manifest,
)
from vpr.maps.table import HEADER_BYTES

MODEL = "net@0123"
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def rows(first, count):
    numbers = np.arange(first, first + count)
    return {
        "descriptors": np.stack([numbers, numbers + 0.5], 1).astype(np.float16),
        "stamps_ns": numbers.astype(np.int64),
    }


def write(folder, revision, first, count, after=None, model=MODEL):
    with PartWriter(folder, revision, "places") as writer:
        assert writer.saved("keyframes") == first
        writer.append("keyframes", rows(first, count))
        places = writer.finish(first + count, {"note": "ü"})
    with PartWriter(folder, revision, "graph") as writer:
        writer.append("edges", {"measured": np.eye(4)[:, ::-1]})  # not contiguous
        graph = writer.finish(4, {})
    return commit(folder, revision, [places, graph], model, after)


def save(folder, count=10, model=MODEL):
    return write(folder, begin_revision(folder), 0, count, model=model)


def add(folder, count):
    before = read_manifest(folder)
    return write(folder, before.revision, before.part("places").count, count, before)


def stamps(folder):
    return open_part(folder, "places").table("keyframes").column("stamps_ns", "<i8").all().tolist()


def read_all(folder):
    for digest in read_manifest(folder).parts:
        for table in open_part(folder, digest.name).tables.values():
            table.verify()


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "map")
    return tmp_path / "map"


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A map of three saves, its pieces of 4 rows."""
    folder = tmp_path_factory.mktemp("maps") / "map"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_module, "PIECE_ROWS", 4)
        save(folder)
        add(folder, 3)
        add(folder, 20)
    return folder


def files_of(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.endswith("lock"))


def test_what_is_written_is_read(folder):
    manifest = read_manifest(folder)
    assert manifest.model == MODEL
    assert {part.name: part.count for part in manifest.parts} == {"graph": 4, "places": 10}
    part = open_part(folder, "places", MODEL)
    assert part.metadata == {"note": "ü"}
    for name, array in rows(0, 10).items():
        column = part.table("keyframes").column(name, array.dtype, array.shape[1:])
        assert column.all().dtype == array.dtype
        np.testing.assert_array_equal(column.all(), array)
        np.testing.assert_array_equal(column[3], array[3])
        np.testing.assert_array_equal(column[3:5], array[3:5])
    edges = open_part(folder, "graph").table("edges").arrays()
    np.testing.assert_array_equal(edges["measured"], np.eye(4)[:, ::-1])


def test_rows_added_by_several_saves_are_one_table(grown):
    assert stamps(grown) == list(range(33))
    column = open_part(grown, "places").table("keyframes").column("descriptors", "<f2", (None,))
    np.testing.assert_array_equal(column[2:31], rows(2, 29)["descriptors"])
    assert read_manifest(grown).saves == 3


def test_an_increment_writes_only_itself(folder):
    add(folder, 50_000)
    files = {path: path.stat().st_size for path in files_of(folder)}
    head = {path: path.read_bytes()[: files[path]] for path in files if path.suffix != ".json"}
    add(folder, 2)
    for path, content in head.items():
        assert path.read_bytes()[: len(content)] == content
    grown_by = {path.name: path.stat().st_size - size for path, size in files.items()}
    assert grown_by["places.keyframes.stamps_ns"] == 16
    assert grown_by["places.keyframes.descriptors"] == 8
    assert grown_by["places.keyframes.journal"] == 16  # one record: an end and two checksums
    assert abs(grown_by["manifest.json"]) < 20


def test_saving_anew_replaces_the_map_and_removes_the_old_revision(folder):
    save(folder, 5)
    assert stamps(folder) == list(range(5))
    assert sorted(p.name for p in folder.iterdir()) == ["000002", "lock", "manifest.json"]


def test_a_digest_travels_as_json(folder):
    digest = read_manifest(folder).part("places")
    assert PartDigest.model_validate_json(digest.model_dump_json()) == digest


def test_a_save_that_dies_before_commit_leaves_the_map(folder):
    revision = begin_revision(folder)
    with PartWriter(folder, revision, "places") as writer:
        writer.append("keyframes", rows(0, 3))
        writer.finish(3, {})
    with PartWriter(folder, "000001", "places") as writer:
        writer.append("keyframes", rows(70, 9000))
        writer.finish(9010, {})
    assert stamps(folder) == list(range(10))
    add(folder, 2)  # over what was left behind
    assert stamps(folder) == list(range(12))
    save(folder, 7)
    assert sorted(p.name for p in folder.iterdir()) == ["000002", "lock", "manifest.json"]


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_maps_folder import add, save
from vpr.maps.folder import MANIFEST
folder = Path(sys.argv[2])
if not (folder / MANIFEST).exists():
    save(folder)
print("ready", flush=True)
while True:
    add(folder, 997)
    print("saved", flush=True)
"""


def test_a_process_killed_at_any_time_loses_no_save(tmp_path):
    folder, chance, kept = tmp_path / "map", random.Random(8), 0
    for _ in range(8):
        command = [sys.executable, "-c", WRITER, str(__file__).rsplit("/", 1)[0], str(folder)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.06))
        child.send_signal(signal.SIGKILL)
        said = child.stdout.read().count("saved\n")
        child.wait()
        read_all(folder)
        found = stamps(folder)
        assert found == list(range(len(found)))
        assert len(found) >= max(kept, 10) + 997 * said
        kept = len(found)
    assert kept > 10


def test_two_processes_cannot_save_to_one_map_together(folder):
    before = read_manifest(folder)
    with (
        PartWriter(folder, "000001", "places"),
        pytest.raises(MapError, match="being saved to by another"),
    ):
        PartWriter(folder, "000001", "places")
    add(folder, 1)
    with pytest.raises(MapError, match="saved to by another process: nothing was added"):
        commit(folder, "000001", read_manifest(folder).parts, MODEL, after=before)
    assert stamps(folder) == list(range(11))


def test_commit_refuses_a_part_that_is_not_there_and_keeps_the_map(folder):
    revision = begin_revision(folder)
    with PartWriter(folder, revision, "places") as writer:
        writer.append("keyframes", rows(0, 3))
        digest = writer.finish(3, {})
    (folder / revision / "places.keyframes.stamps_ns").unlink()
    with pytest.raises(MapError, match=r"cannot read .*places\.keyframes\.stamps_ns"):
        commit(folder, revision, [digest], MODEL)
    with pytest.raises(MapError, match="written twice"):
        commit(folder, revision, [digest, digest], MODEL)
    assert stamps(folder) == list(range(10))


@pytest.mark.parametrize("name", ["../places", "Places", "", "a/b"])
def test_a_part_stays_inside_its_revision(folder, name):
    revision = begin_revision(folder)
    with pytest.raises(MapError, match="not a name"):
        PartWriter(folder, revision, name)
    with pytest.raises(MapError, match="no revision"):
        PartWriter(folder, "../000001", "places")


def test_rows_that_do_not_fit_the_table_are_refused(folder):
    with PartWriter(folder, "000001", "places") as writer:
        with pytest.raises(MapError, match="has columns"):
            writer.append("keyframes", rows(10, 1) | {"more": np.zeros(1)})
        with pytest.raises(MapError, match="different lengths"):
            writer.append("keyframes", rows(10, 1) | {"stamps_ns": np.zeros(2, np.int64)})


def test_what_is_not_in_the_map_is_named(folder):
    with pytest.raises(MapError, match=r"no part 'features' \(it has: graph, places\)"):
        open_part(folder, "features")
    part = open_part(folder, "places")
    with pytest.raises(MapError, match="no table 'views'"):
        part.table("views")
    with pytest.raises(MapError, match="no column 'pixels'"):
        part.table("keyframes").column("pixels", "<f4")
    with pytest.raises(MapError, match=r"holds float16 \(2,\), not float16 \(3,\)"):
        part.table("keyframes").column("descriptors", "<f2", (3,))


def test_another_model_is_refused(folder):
    with pytest.raises(MapError, match=r"model 'net@0123', not with 'other@9'"):
        open_part(folder, "places", "other@9")


def damaged(grown, tmp_path_factory, victim, content):
    copy = tmp_path_factory.mktemp("damaged") / "map"
    shutil.copytree(grown, copy)
    (copy / victim.relative_to(grown)).write_bytes(content)
    return copy


def refusal_of(folder):
    try:
        read_all(folder)
    except MapError as error:
        return str(error)
    return ""


def test_a_cut_at_every_byte_of_every_header_is_refused_by_file(grown, tmp_path):
    copy = tmp_path / "map"
    shutil.copytree(grown, copy)
    for victim in files_of(copy):
        content = victim.read_bytes()
        header = len(content) - 1 if victim.suffix == ".json" else HEADER_BYTES
        for length in range(min(header, len(content))):
            victim.write_bytes(content[:length])
            assert victim.name in refusal_of(copy), (victim, length)
        victim.write_bytes(content)
    assert not refusal_of(copy)


@FUZZ
@given(data=st.data())
def test_any_cut_is_refused_by_file(grown, tmp_path_factory, data):
    victim = data.draw(st.sampled_from(files_of(grown)))
    content = victim.read_bytes()
    cut = content[: data.draw(st.integers(0, len(content) - 2))]
    assert victim.name in refusal_of(damaged(grown, tmp_path_factory, victim, cut))


@FUZZ
@given(data=st.data())
def test_any_flipped_bit_is_refused_by_file(grown, tmp_path_factory, data):
    victim = data.draw(st.sampled_from(files_of(grown)))
    content = bytearray(victim.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << (bit % 8)
    copy = damaged(grown, tmp_path_factory, victim, content)
    refusal = refusal_of(copy)
    if refusal:
        assert victim.name in refusal
    else:  # white space between the manifest's fields carries nothing
        assert victim.name == "manifest.json"
        assert read_manifest(copy) == read_manifest(grown)


def test_damage_is_found_when_its_rows_are_read_and_not_elsewhere(grown, tmp_path):
    copy = tmp_path / "map"
    shutil.copytree(grown, copy)
    path = copy / "000001/places.keyframes.stamps_ns"
    content = bytearray(path.read_bytes())
    content[HEADER_BYTES + 8 * 20] ^= 1
    path.write_bytes(content)
    column = open_part(copy, "places").table("keyframes").column("stamps_ns", "<i8")
    assert column[0:16].tolist() == list(range(16))
    with pytest.raises(MapError, match=r"stamps_ns is damaged in rows 17 to 20"):
        column[16:22]


def test_a_file_of_another_column_or_map_is_refused(folder, tmp_path):
    revision = folder / "000001"
    shutil.copy(revision / "graph.edges.measured", revision / "places.keyframes.stamps_ns")
    with pytest.raises(MapError, match=r"places\.keyframes\.stamps_ns is damaged or of another"):
        open_part(folder, "places")
    other = tmp_path / "other"
    write_other = begin_revision(other)
    with PartWriter(other, write_other, "places") as writer:
        writer.append("keyframes", rows(5, 10))
        commit(other, write_other, [writer.finish(10, {})], MODEL)
    shutil.copy(other / "000001/places.keyframes.stamps_ns", revision)
    with pytest.raises(MapError, match=r"stamps_ns is damaged in rows 0 to 9"):
        stamps(folder)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"format": "bag"}', b"\xff\xfe", b"[" * 100_000]
)
def test_a_foreign_manifest_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(MapError, match=r"manifest\.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(("version", "words"), [(1, "an older version"), (3, "a newer version")])
def test_a_map_of_another_version_is_refused_as_such(folder, version, words):
    path = folder / "manifest.json"
    document = json.loads(path.read_text()) | {"schema_version": version, "novelty": True}
    path.write_text(json.dumps(document))
    with pytest.raises(MapError, match=f"schema version {version}; .* made by {words}"):
        read_manifest(folder)
    with pytest.raises(MapError, match=words):
        begin_revision(folder)  # and is not overwritten
    assert (folder / "000001/places.keyframes.stamps_ns").exists()


def test_no_map_there_is_said_so(tmp_path):
    with pytest.raises(MapError, match=r"has no manifest\.json"):
        read_manifest(tmp_path)
    with pytest.raises(MapError, match=r"has no manifest\.json"):
        open_part(tmp_path / "absent", "places")


def test_a_folder_of_other_things_is_not_written_to(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(MapError, match=r"holds 'thesis\.tex'"):
        begin_revision(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "map").write_text("")
    with pytest.raises(MapError, match="cannot write a map to"):
        begin_revision(tmp_path / "map")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what is in memory on Linux alone")
def test_scattered_reading_does_not_bring_a_whole_column_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(table_module, "TAKEN_ROWS", 4)
    content = np.random.default_rng(0).integers(0, 255, (8192, 4096), dtype=np.uint8)
    revision = begin_revision(tmp_path)
    with PartWriter(tmp_path, revision, "places") as writer:
        writer.append("keyframes", {"descriptors": content})
        digest = writer.finish(len(content), {})
    commit(tmp_path, revision, [digest], MODEL, None)
    column = open_part(tmp_path, "places").table("keyframes").column("descriptors", "u1", (4096,))
    column.all()
    assert resident_kilobytes("keyframes.descriptors") >= content.nbytes / 1024
    column.release()
    for row in np.random.default_rng(1).permutation(len(content)):
        np.testing.assert_array_equal(column.take(np.array([row]))[0], content[row])
    assert resident_kilobytes("keyframes.descriptors") < content.nbytes / 1024 / 2


def resident_kilobytes(name):
    lines = Path("/proc/self/smaps").read_text().splitlines()
    mapped = [index for index, line in enumerate(lines) if name in line]
    sizes = [next(line for line in lines[index:] if line.startswith("Rss:")) for index in mapped]
    return sum(int(size.split()[1]) for size in sizes)
