"""What a ledger's operator watches: `/metrics` in Prometheus' text form; the engine has a page of its own.

Gauges are read when they are asked for; counters grow as requests are answered. Names are `freehold_...`; what each
alarm means and what to do about it stands in docs/runbook.md, the alarms themselves in docs/alarms.yml.
Source: https://prometheus.io/docs/practices/naming.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from freehold.rpc.archive import IndexStanding
from freehold.rpc.desk import Desk
from freehold.rpc.routes import ROUTES

_FAILED: Final = "500"
_BUCKETS_S: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0)


class Metrics:
    """The metrics of one daemon; used from its event loop."""

    def __init__(
        self,
        desk: Desk,
        folder: Path | None = None,
        now_s: Callable[[], float] = time.time,
        index: Callable[[], IndexStanding | None] = lambda: None,
    ) -> None:
        """Bind what is measured.

        Args:
            desk: of the engine.
            folder: whose file system's free space is told; none when None.
            now_s: the wall clock, in seconds since 1970.
            index: gives where history stands; None when none is kept.
        """
        self._registry = CollectorRegistry()
        self._registry.register(_Standing(desk, folder, now_s))
        self._registry.register(_History(desk, index))
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "freehold_http_requests", "Requests answered", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "freehold_http_request_seconds",
            "From a request's arrival to its answer",
            ["route"],
            registry=self._registry,
            buckets=_BUCKETS_S,
        )
        for route in ROUTES:  # from 0 on: a counter that begins with the first failure shows no increase
            self._requests.labels(route.name, _FAILED)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: a name of the table of routes; never what a client wrote.
            status: of the answer.
            seconds: how long it took.
        """
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self._registry)


def make_metrics_app(metrics: Metrics) -> Starlette:
    """Build the application that shows them; for a listener of its own, which the operator keeps to herself."""

    async def page(_: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST, headers={"cache-control": "no-store"})

    return Starlette(routes=[Route("/metrics", page, methods=["GET"])])


class _Standing(Collector):
    """Where the engine stands, at the moment of asking."""

    def __init__(self, desk: Desk, folder: Path | None, now_s: Callable[[], float]) -> None:
        self._desk, self._folder, self._now_s = desk, folder, now_s

    def collect(self) -> Iterator[Metric]:
        standing = self._desk.standing()
        halted = standing.halted
        yield _gauge("freehold_height", "Of the newest durable block", standing.height)
        yield _gauge("freehold_oldest_height", "Lowest height whose state can be proven", standing.oldest_height)
        age_s = self._now_s() - standing.time_ms / 1_000
        yield _gauge("freehold_block_age_seconds", "Wall clock minus the newest block's time", age_s)
        yield _gauge("freehold_proposing", "1 while it makes blocks", int(standing.proposing))
        stopped = GaugeMetricFamily("freehold_halted", "1 while it makes no blocks, by the reason", labels=["code"])
        stopped.add_metric(["" if halted is None else halted.code], int(halted is not None))
        yield stopped
        notice = GaugeMetricFamily("freehold_notice", "1 while something is to be mended, by what", labels=["code"])
        notice.add_metric(["" if standing.notice is None else standing.notice.code], int(standing.notice is not None))
        yield notice
        yield _gauge("freehold_mempool_txs", "Transactions that wait", standing.mempool_txs)
        yield _gauge("freehold_mempool_bytes", "Their size", standing.mempool_bytes)
        yield _gauge("freehold_snapshot_height", "Of the newest snapshot that peers may have", standing.snapshot_height)
        dropped = CounterMetricFamily("freehold_snapshots_failed", "Snapshots that were not taken")
        dropped.add_metric([], standing.snapshots_failed)
        yield dropped
        faults = CounterMetricFamily("freehold_misbehaviors", "Pieces of evidence against validators, in blocks")
        faults.add_metric([], standing.faults)
        yield faults
        yield InfoMetricFamily("freehold_engine", "Its kind", {"kind": standing.engine})
        if self._folder is not None:
            free = shutil.disk_usage(self._folder).free
            yield _gauge("freehold_disk_free_bytes", "Free on the file system of the home", free)


class _History(Collector):
    """How far the index is behind the engine."""

    def __init__(self, desk: Desk, index: Callable[[], IndexStanding | None]) -> None:
        self._desk, self._index = desk, index

    def collect(self) -> Iterator[Metric]:
        standing = self._index()
        if standing is None:
            return
        behind = self._desk.standing().height - max(standing.height, 0)
        yield _gauge("freehold_index_behind_blocks", "Blocks that history does not hold yet", max(behind, 0))
        yield _gauge("freehold_index_missing_blocks", "Blocks between others that it lacks", standing.missing)
        failed = GaugeMetricFamily("freehold_index_failed", "1 while it does not follow, by reason", labels=["code"])
        failed.add_metric([standing.failed], int(bool(standing.failed)))
        yield failed


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value)
