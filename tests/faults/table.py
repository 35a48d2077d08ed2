"""The table of faults: what strikes, how often, over which brokers; all of them in `make chaos`, a few jobs each in `make test`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from tests.faults import clocks
from tests.faults import strikes as do
from tests.faults.load import Load
from tests.faults.strikes import Strike
from tests.processes import BROKERS, Broker

DIRECT: tuple[Broker, ...] = ("direct",)
ONLY_RABBITMQ: tuple[Broker, ...] = ("rabbitmq",)


def _needs_root() -> str | None:
    return None if os.geteuid() == 0 else "only root may mount a small disk"


def _nothing() -> str | None:
    return None


@dataclass(frozen=True)
class Fault:
    """One row. `strike` answers how often it hit; `around` a load something may be prepared, even the strike itself."""

    name: str
    strike: Strike = do.nothing_more
    every: float = 2.0  # seconds between two strikes
    times: int = 6  # in the long form
    brokers: tuple[Broker, ...] = BROKERS
    short: tuple[Broker, ...] = DIRECT  # the brokers in the short form
    around: Callable[[Load], AbstractContextManager[Strike | None]] = do.unprepared
    tools: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None  # how long a body takes, where the fault must meet one
    needs: Callable[[], str | None] = _nothing  # why it cannot be done here


FAULTS = (
    Fault("none", times=1, short=()),  # tests/contract/test_dispatch.py
    Fault("kill -9 worker", do.worker_killed),
    Fault("kill -9 async worker", do.async_worker_killed, times=3),  # a call that was lost `max_lost` (5) times is poison
    Fault("kill -9 pool child", do.child_killed, every=0.5, times=20),
    Fault("kill -9 planners", do.planner_killed, times=3),
    Fault("kill -9 leader", do.leader_killed, times=4, short=()),
    Fault("kill -9 API", do.api_killed, every=1.0, times=6, around=do.client_of_a_dying_api),
    Fault("kill -9 everything", do.everything_killed, times=2),
    Fault("messages discarded", do.messages_discarded, every=0.5, times=20),
    Fault("messages doubled", every=0.1, times=200, around=do.doubling, short=("direct", "published")),
    Fault("kill -9 Redis, everysec, after a second", do.quiet_server_killed, every=3.0, times=3, short=()),
    Fault("kill -9 Redis, always", do.server_killed, every=3.0, times=3, around=do.always_synced),
    Fault("kill -9 RabbitMQ", do.broker_killed, every=5.0, times=2, brokers=ONLY_RABBITMQ, short=ONLY_RABBITMQ),
    Fault("connections cut", do.connections_cut, short=BROKERS),
    Fault("network swallows", do.network_swallows, every=3.0, times=4),
    Fault("network slow", times=1, around=do.slow_network, short=()),
    Fault("worker's clock +2 h", times=1, around=do.skewed_worker, needs=clocks.missing),
    Fault("Redis' clock +1 h and back", every=1.0, times=3, around=do.clock_jumps, needs=clocks.missing, seconds=0.25),
    Fault("Redis' clock +1 h and back, kill -9 worker", times=3, around=do.clock_jumps_and_a_worker_dies, needs=clocks.missing),
    Fault("steps kill themselves", do.steps_kill_themselves, times=1, tools={"d": "kill_self"}),
    Fault("worker paused past its lease", do.worker_paused, every=1.0, times=3),
    Fault("async worker paused past its lease", do.async_worker_paused, every=1.0, times=3, short=()),
    Fault("pool child paused past its lease", do.child_paused, every=1.0, times=3, short=()),
    Fault("disk full", do.disk_fills_up, times=1, around=do.with_api, needs=_needs_root),
    # Where messages are published through the same Redis, none goes out while it is full.
    Fault("Redis full", do.redis_fills_up, times=1, around=do.with_api, brokers=("direct", "rabbitmq")),
)
