"""The map folder: what is written is read; what is damaged is refused by name."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vpr.maps.folder import (
    MapError,
    PartDigest,
    begin_revision,
    commit,
    read_manifest,
    read_part,
    write_part,
)

MODEL = "net@0123"
PLACES = {
    "descriptors": np.arange(40, dtype=np.float32).reshape(10, 4),
    "stamps_ns": np.arange(10, dtype=np.int64),
    "empty": np.zeros((0, 3), np.uint8),
}
EDGES = {"edges": np.eye(4)[:, ::-1]}  # not contiguous


def save(folder, offset=0.0, model=MODEL):
    revision = begin_revision(folder)
    digests = [
        write_part(
            folder,
            revision,
            "places",
            PLACES | {"descriptors": PLACES["descriptors"] + np.float32(offset)},
            {"note": "ü", "offset": offset},
            count=10,
        ),
        write_part(folder, revision, "graph", EDGES, {}, count=4),
    ]
    return commit(folder, revision, digests, model)


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "map")
    return tmp_path / "map"


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps") / "map"
    save(folder)
    return folder


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_written_is_read(folder):
    manifest = read_manifest(folder)
    assert manifest.model == MODEL
    assert {part.name: part.count for part in manifest.parts} == {"graph": 4, "places": 10}
    arrays, metadata = read_part(folder, "places", MODEL)
    assert metadata == {"note": "ü", "offset": 0.0}
    assert arrays.keys() == PLACES.keys()
    for name, array in PLACES.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    np.testing.assert_array_equal(read_part(folder, "graph")[0]["edges"], EDGES["edges"])


def test_saving_again_replaces_the_map_and_removes_the_old_revision(folder):
    save(folder, offset=5.0)
    assert read_part(folder, "places")[1]["offset"] == 5.0
    assert sorted(path.name for path in folder.iterdir()) == ["000002", "manifest.json"]


def test_a_digest_travels_as_json(folder):
    digest = read_manifest(folder).part("places")
    assert PartDigest.model_validate_json(digest.model_dump_json()) == digest


def test_a_save_that_dies_before_commit_leaves_the_old_map(folder):
    revision = begin_revision(folder)
    write_part(folder, revision, "places", {"x": np.ones(3)}, {}, count=3)
    assert read_part(folder, "places")[1]["offset"] == 0.0
    save(folder, offset=7.0)  # the next save clears what was left behind
    assert read_part(folder, "places")[1]["offset"] == 7.0
    assert sorted(path.name for path in folder.iterdir()) == ["000002", "manifest.json"]


def test_commit_refuses_a_part_that_is_not_there_and_keeps_the_old_map(folder):
    revision = begin_revision(folder)
    digest = write_part(folder, revision, "places", {"x": np.ones(3)}, {}, count=3)
    (folder / revision / "places.safetensors").unlink()
    with pytest.raises(MapError, match="was not changed"):
        commit(folder, revision, [digest], MODEL)
    assert read_part(folder, "places")[1]["offset"] == 0.0
    with pytest.raises(MapError, match="written twice"):
        commit(folder, revision, [digest, digest], MODEL)


@pytest.mark.parametrize("name", ["../places", "Places", "", "a/b"])
def test_a_part_stays_inside_its_revision(folder, name):
    revision = begin_revision(folder)
    with pytest.raises(MapError, match="not a name"):
        write_part(folder, revision, name, {}, {}, count=0)
    with pytest.raises(MapError, match="no revision"):
        write_part(folder, "../000001", "places", {}, {}, count=0)


def test_another_model_is_refused(folder):
    with pytest.raises(MapError, match=r"model 'net@0123', not with 'other@9'"):
        read_part(folder, "places", "other@9")


def test_a_missing_part_is_named_with_those_there(folder):
    with pytest.raises(MapError, match=r"no part 'features' \(it has: graph, places\)"):
        read_part(folder, "features")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_truncation_is_refused_by_file(shared_folder, tmp_path_factory, data):
    copy = tmp_path_factory.mktemp("cut") / "map"
    shutil.copytree(shared_folder, copy)
    victim = data.draw(st.sampled_from(files_of(copy)))
    content = victim.read_bytes()
    victim.write_bytes(content[: data.draw(st.integers(0, len(content) - 2))])
    with pytest.raises(MapError, match=victim.name):
        read_all(copy)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_flipped_bit_is_refused_by_file(shared_folder, tmp_path_factory, data):
    copy = tmp_path_factory.mktemp("flip") / "map"
    shutil.copytree(shared_folder, copy)
    victim = data.draw(st.sampled_from(files_of(copy)))
    content = bytearray(victim.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << (bit % 8)
    victim.write_bytes(content)
    refusal = refusal_of(copy)
    if refusal:
        assert victim.name in refusal
    else:  # white space between the manifest's fields carries nothing
        assert victim.name == "manifest.json"
        assert read_manifest(copy) == read_manifest(shared_folder)


def refusal_of(folder):
    try:
        read_all(folder)
    except MapError as error:
        return str(error)
    return ""


def read_all(folder):
    return {part.name: read_part(folder, part.name) for part in read_manifest(folder).parts}


def test_a_part_of_another_revision_is_refused(folder):
    foreign = folder.parent / "other"
    save(foreign, offset=3.0)
    shutil.copy(foreign / "000001/places.safetensors", folder / "000001/places.safetensors")
    with pytest.raises(MapError, match=r"places\.safetensors .*SHA-256|cut short"):
        read_part(folder, "places")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"format": "bag"}', b"\xff\xfe", b"[" * 100_000]
)
def test_a_foreign_manifest_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(MapError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_a_newer_map_is_refused_as_such(folder):
    path = folder / "manifest.json"
    document = json.loads(path.read_text()) | {"schema_version": 2, "novelty": True}
    path.write_text(json.dumps(document))
    with pytest.raises(MapError, match="schema version 2; this program reads up to 1"):
        read_manifest(folder)
    with pytest.raises(MapError, match="newer"):
        begin_revision(folder)  # and is not overwritten
    assert (folder / "000001/places.safetensors").exists()


def test_no_map_there_is_said_so(tmp_path):
    with pytest.raises(MapError, match=r"has no manifest\.json"):
        read_manifest(tmp_path)
    with pytest.raises(MapError, match=r"has no manifest\.json"):
        read_part(tmp_path / "absent", "places")


def test_a_folder_of_other_things_is_not_written_to(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(MapError, match=r"holds 'thesis\.tex'"):
        begin_revision(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "map").write_text("")
    with pytest.raises(MapError, match="cannot write a map to"):
        begin_revision(tmp_path / "map")
