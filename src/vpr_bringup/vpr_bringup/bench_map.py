"""Benchmark rows of maps on disk: opening, memory while serving, and saving what is new."""

from __future__ import annotations

from typing import Any

from vpr.evaluation.map_scale import INCREMENT, map_costs

SIZES = (10_000, 1_000_000)


def map_rows(details: dict[str, Any], sizes: tuple[int, ...] = SIZES) -> list[dict[str, str]]:
    """Rows with the keys ``what``, ``ours``, ``peer`` and ``wanted``.

    Args:
        sizes: keyframes of each map, the one that matters most at the end.
    """
    costs = details["maps"] = map_costs(sizes)
    large, sized = costs[-1], [f"{row['keyframes']:,}" for row in costs]
    name = f"map of {sized[-1]} keyframes x 256"
    return [
        _row(f"{name}: opens in", f"{large['open_s']:.2f} s", "< 1 s"),
        _row(
            f"{name}: resident while serving, exact search / as configured; step",
            f"{large['resident_mb']:.0f} / {large['shipped_resident_mb']:.0f} MB "
            f"({large['resident_ratio']:.2f} / {large['shipped_resident_ratio']:.2f} x the "
            f"descriptors in half precision); {large['step_ms']:.0f} / "
            f"{large['shipped_step_ms']:.1f} ms",
            "< 1.5 x",
        ),
        _row(
            f"save of {INCREMENT} more keyframes, map of {' / '.join(sized)}",
            f"{_each(costs, 'increment_ms')} ms, {_each(costs, 'increment_bytes')} bytes",
            "independent of the map's size",
        ),
    ]


def _row(what: str, ours: str, wanted: str) -> dict[str, str]:
    return {"what": what, "ours": ours, "peer": "-", "wanted": wanted}


def _each(costs: list[dict[str, Any]], column: str) -> str:
    return " / ".join(f"{row[column]:,.0f}" for row in costs)
