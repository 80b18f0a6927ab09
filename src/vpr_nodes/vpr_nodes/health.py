"""What a node tells about itself on /diagnostics: rates, latencies, drops and missing inputs."""

from __future__ import annotations

import time
from collections import Counter, deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

WINDOW = 300  # latest samples that rates and latencies are taken over


class Health:
    """Counters of one node. Not thread-safe: one callback group a node."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.received: Counter[str] = Counter()
        self.published: Counter[str] = Counter()
        self.drops: Counter[str] = Counter()
        self.notes: dict[str, object] = {}  # anything else worth showing, as it is now
        self.last_drop = ""
        self.last_reason = ""
        self.failed = ""
        self._processing_ms: deque[float] = deque(maxlen=WINDOW)
        self._arrivals: dict[str, deque[float]] = {}
        self._expected: dict[str, str] = {}
        self._started = time.monotonic()
        self._reported_drops = 0

    def expect(self, topic: str, without: str) -> None:
        """Say on /diagnostics while ``topic`` is silent; ``without`` tells what that means."""
        self._expected[topic] = without

    def arrived(self, topic: str) -> None:
        """Count a received message."""
        self.received[topic] += 1
        self._arrivals.setdefault(topic, deque(maxlen=WINDOW)).append(time.monotonic())

    def drop(self, reason: str, message: str) -> None:
        """Count input that could not be used; ``reason`` is a short key."""
        self.drops[reason] += 1
        self.last_drop = message

    def processed(self, seconds: float) -> None:
        """Record the duration of one unit of work."""
        self._processing_ms.append(1e3 * seconds)

    def rate(self, topic: str) -> float:
        """Messages a second over the latest arrivals; 0 when silent for 2 s."""
        times = self._arrivals.get(topic)
        if not times or len(times) < 2 or time.monotonic() - times[-1] > 2.0:
            return 0.0
        return (len(times) - 1) / max(times[-1] - times[0], 1e-9)

    def silent_inputs(self) -> list[str]:
        """One sentence for each expected topic that has not been heard for 2 s."""
        now = time.monotonic()
        sentences = []
        for topic, without in self._expected.items():
            times = self._arrivals.get(topic)
            since = now - (times[-1] if times else self._started)
            if since > 2.0:
                never = "never received" if not times else f"silent for {since:.0f} s"
                sentences.append(f"{topic} {never}: {without}")
        return sentences

    def status(self) -> DiagnosticStatus:
        """The node's entry on /diagnostics."""
        silent = self.silent_inputs()
        dropped = sum(self.drops.values())
        level, summary = DiagnosticStatus.OK, "running"
        if silent or dropped > self._reported_drops:
            level = DiagnosticStatus.WARN
            summary = "; ".join(silent) or f"dropped input: {self.last_drop}"
        if self.failed:
            level, summary = DiagnosticStatus.ERROR, self.failed
        self._reported_drops = dropped
        values = [KeyValue(key=f"received {k}", value=str(v)) for k, v in self.received.items()]
        values += [
            KeyValue(key=f"rate_hz {topic}", value=f"{self.rate(topic):.2f}")
            for topic in self._arrivals
        ]
        values += [KeyValue(key=f"published {k}", value=str(v)) for k, v in self.published.items()]
        values += [KeyValue(key=f"dropped {k}", value=str(v)) for k, v in self.drops.items()]
        values += [KeyValue(key=k, value=str(v)) for k, v in self.notes.items()]
        values.append(KeyValue(key="last_reason", value=self.last_reason))
        if self._processing_ms:
            p50, p95 = np.percentile(list(self._processing_ms), [50, 95])
            values.append(KeyValue(key="processing_ms_p50", value=f"{p50:.3f}"))
            values.append(KeyValue(key="processing_ms_p95", value=f"{p95:.3f}"))
        return DiagnosticStatus(level=level, name=self.name, message=summary, values=values)
