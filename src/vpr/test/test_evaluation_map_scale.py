from vpr.evaluation.map_scale import INCREMENT, made_up_map, map_costs
from vpr.maps.folder import open_part
from vpr.places.memory import PlaceMemory


def test_a_made_up_map_holds_what_was_asked_for(tmp_path):
    made_up_map(tmp_path / "map", 30, 8)
    places = PlaceMemory.of_map(open_part(tmp_path / "map", "places"))
    assert (len(places), places.dimension) == (30, 8)
    places.check()


def test_an_increment_writes_as_much_to_a_large_map_as_to_a_small_one():
    small, large = map_costs(sizes=(200, 20_000), dimension=16)
    assert large["half_precision_mb"] == 0.64
    assert small["increment_bytes"] > INCREMENT * 16 * 2
    assert abs(large["increment_bytes"] - small["increment_bytes"]) < 64
