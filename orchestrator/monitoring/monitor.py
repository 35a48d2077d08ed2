"""`ToolUsageMonitor`: counts calls of tools, searches and tokens; by itself, or into the figures of a whole platform."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import redis

from orchestrator.errors import ToolWeaverError
from orchestrator.models.report import MetricsReport
from orchestrator.models.usage import ModelCall
from orchestrator.monitoring.feed import Feed, Tally, model_counts, search_counts, token_counts
from orchestrator.monitoring.figures import report_of
from orchestrator.monitoring.metrics import UNKNOWN_TOOL, Metrics
from orchestrator.settings import Settings, load_settings

log = logging.getLogger(__name__)

PLATFORM = "tw:metrics"  # the hash of the platform's counters (`state.keys.METRICS`)
FILE = "tool_usage.jsonl"
FILE_BYTES, FILES = 10 << 20, 5  # of one log file, and how many former ones are kept
NAME_LETTERS = 128
_CODE = re.compile(r"[A-Za-z][\w.]{0,63}(?=$|[:(])", re.ASCII)


class ToolUsageMonitor:
    """Counts what is logged, in bounded memory; threads may share it. No method that logs ever raises.

    Args:
        log_to_file: Also write each thing as a line of JSON to `tool_usage.jsonl` in `log_dir`, readable by its owner only; at
            10 MiB it is put aside, and five former ones are kept. Where it cannot be written a warning says so, once.
        log_dir: Default: `logs` in the platform's home.
        client: Redis of a platform: what is logged counts there, and `report` tells of all its processes.
        settings: Default: those of this process; only the home is read.
        log_queries: Write the words of queries to the file too. They may be private: by default it gets their length and a
            digest, by which equal ones can be told.
    """

    def __init__(
        self,
        log_to_file: bool = False,
        log_dir: str | os.PathLike[str] | None = None,
        *,
        client: redis.Redis | None = None,
        settings: Settings | None = None,
        log_queries: bool = False,
    ) -> None:
        self._tally = Tally()
        self._feed = Feed(client, PLATFORM) if client is not None else None
        self._metrics = Metrics(client, PLATFORM) if client is not None else None
        self._log_queries = log_queries
        self._file = _LogFile(Path(log_dir) if log_dir else (settings or load_settings()).home / "logs") if log_to_file else None

    def log_tool_call(self, name: str, success: bool, latency: float, error: object = None) -> None:
        """Counts a call of a tool that took `latency` seconds. Of `error` only its code is kept: messages carry arguments."""
        self._safely(lambda: self._tool_call(_text(name), bool(success), _seconds(latency), error))

    def log_search_query(self, query: str, num_results: int = 0, latency: float = 0.0, cache_hit: bool = False) -> None:
        """Counts a search for tools that took `latency` seconds."""
        self._safely(lambda: self._search(str(query), int(num_results), _seconds(latency), bool(cache_hit)))

    def log_token_usage(self, input_tokens: int = 0, output_tokens: int = 0, cached_tokens: int = 0) -> None:
        """Counts tokens of a model; `input_tokens` without those that were read from its cache, as Anthropic counts them."""
        self._safely(lambda: self._tokens(int(input_tokens), int(output_tokens), int(cached_tokens)))

    def log_model_call(self, call: ModelCall) -> None:
        """Counts a request to a model with its tokens and its cost."""
        self._safely(lambda: self._model_call(call))

    def report(self) -> MetricsReport:
        """The figures until now.

        Raises:
            redis.RedisError: the platform's store does not answer.
        """
        if self._feed is None or self._metrics is None:
            return report_of(self._tally.counted(), shared=False)
        self._feed.flush()
        return report_of(self._metrics.read(), shared=True)

    def _tool_call(self, name: str, success: bool, seconds: float, error: object) -> None:
        code = None if success else code_of(error)
        target = self._feed.tool_call if self._feed is not None else self._own_call
        target(name, "succeeded" if success else "failed", seconds=seconds, code=code)
        self._write("tool_call", tool=name, success=success, latency_s=seconds, error=code)

    def _own_call(self, tool: str, outcome: str, *, seconds: float | None, code: str | None) -> None:
        self._tally.call(tool, outcome, seconds, code)

    def _search(self, query: str, results: int, seconds: float, cached: bool) -> None:
        self._add(search_counts("monitor", cached, seconds))
        digest = hashlib.sha256(query.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        said: dict[str, Any] = {"query": query} if self._log_queries else {"query_sha256": digest, "query_length": len(query)}
        self._write("search", **said, num_results=results, latency_s=seconds, cache_hit=cached)

    def _tokens(self, given: int, made: int, cached: int) -> None:
        self._add(token_counts("", "", input_tokens=given, output_tokens=made, cached_tokens=cached))
        self._write("tokens", input_tokens=given, output_tokens=made, cached_tokens=cached)

    def _model_call(self, call: ModelCall) -> None:
        if self._feed is not None:
            self._feed.model_call(call)
        else:
            self._tally.add(model_counts(call))
        self._write("model_call", **call.model_dump(mode="json", exclude={"id"}))

    def _add(self, counts: list[Any]) -> None:
        if self._feed is not None:
            self._feed.add(*counts)
        else:
            self._tally.add(counts)

    def _write(self, kind: str, **fields: Any) -> None:
        if self._file is not None:
            self._file.write({"ts": datetime.now(UTC).isoformat(timespec="milliseconds"), "kind": kind, **fields})

    def _safely(self, count: Callable[[], None]) -> None:
        try:
            count()
        except Exception as error:  # whoever is watched must not suffer for it
            log.warning("something was not counted: %s", type(error).__name__, extra={"action": "not_counted"})

    def close(self) -> None:
        """Sends what waits, and closes the file."""
        if self._feed is not None:
            self._safely(lambda: self._flush(self._feed))
        if self._file is not None:
            self._file.close()

    @staticmethod
    def _flush(feed: Feed | None) -> None:
        if feed is not None:
            feed.flush()


class _LogFile:
    """A file of JSON lines that is private, rotated, and given up with one warning when it cannot be written."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._handler: _Private | None = None
        try:
            folder = folder.expanduser()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._handler = _Private(folder / FILE, maxBytes=FILE_BYTES, backupCount=FILES, encoding="utf-8", errors="replace")
        except OSError as error:
            self._give_up(folder, error)

    def write(self, line: dict[str, Any]) -> None:
        handler = self._handler
        if handler is None:
            return
        record = logging.LogRecord("usage", logging.INFO, "", 0, json.dumps(line, default=str), None, None)
        with self._lock:
            try:
                handler.write(record)
            except (OSError, ValueError) as error:
                self._give_up(Path(handler.baseFilename).parent, error)

    def close(self) -> None:
        with self._lock:
            if self._handler is not None:
                self._handler.close()
                self._handler = None

    def _give_up(self, folder: Path, error: Exception) -> None:
        self._handler = None
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        log.warning(
            "the usage log in `%s` cannot be written (%s); usage is only counted. Give `log_dir` a folder that you may write.",
            folder, why, extra={"action": "usage_log_given_up"},
        )  # fmt: skip


class _Private(RotatingFileHandler):
    """Writes files that only their owner reads, and says when it cannot."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.fchmod(descriptor, 0o600)
        return open(descriptor, "a", encoding=self.encoding, errors=self.errors)

    def write(self, record: logging.LogRecord) -> None:
        """One line.

        Raises:
            OSError: it was not written.
        """
        if self.shouldRollover(record):
            self.doRollover()
        stream = self.stream or self._open()
        self.stream = stream
        stream.write(record.getMessage() + self.terminator)
        stream.flush()


def code_of(error: object) -> str:
    """A word for an error that holds nothing of what was said: its code, its class, or the word before the first colon."""
    if isinstance(error, ToolWeaverError):
        return error.code
    if isinstance(error, BaseException):
        return type(error).__name__
    found = _CODE.match(str(error)) if error else None
    return found[0] if found else "failed"


def _text(name: object) -> str:
    return str(name)[:NAME_LETTERS] or UNKNOWN_TOOL


def _seconds(latency: float) -> float:
    seconds = float(latency)
    return seconds if 0.0 <= seconds < float("inf") else 0.0
