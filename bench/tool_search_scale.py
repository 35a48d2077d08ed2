"""How the index of tools behaves from a thousand tools to a million: time, memory, build, start, and what it does not find.

    python -m bench.tool_search_scale [--sizes 1000 10000] [--full] [--queries 300] [--home FOLDER]

The catalogs are real tools recombined: words of two of them, and a mixture of their two vectors with noise; the queries are
real ones, as they are. Times of a search are wall and processor time of its one thread, without the encoder. Recall compares
with all tools scored exactly. Memory is what is resident in the process that searches, mapped files included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
SETS = ("metatool", "sealtools", "bfcl")
SIZES = (1_000, 10_000)
FULL = (1_000, 10_000, 100_000, 1_000_000)
NOISE = 0.25  # length of the noise beside a vector of length 1
K = 10
SEED = 7
SOME_SERVERS = tuple(f"server{n}" for n in range(40))
TIMED = ("words", "both", "one server of 211", "40 servers of 211")


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def real_tools() -> list[dict[str, Any]]:
    """The tools of all public sets."""
    return [t for name in SETS for t in _lines(DATA / "toolsearch" / name / "tools.jsonl")] + _lines(
        DATA / "livemcp" / "tools.jsonl"
    )


def real_queries(number: int) -> list[str]:
    """Queries of all sets alike."""
    some = [[q["query"] for q in _lines(DATA / "toolsearch" / name / "queries.jsonl")] for name in SETS]
    rng = np.random.default_rng(SEED)
    return [s[i] for s in some for i in rng.choice(len(s), -(-number // len(SETS)), replace=False)][:number]


def encoded(home: Path, name: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """The vectors of texts, made once for a folder."""
    file = home / f"{name}-{len(texts)}.npy"
    if not file.exists():
        from orchestrator.providers.minilm import MiniLM

        np.save(file, MiniLM().embed(texts))
    return np.asarray(np.load(file), np.float32)


class Mixed:
    """So many tools, made of real ones; their vectors are asked for part by part."""

    def __init__(self, tools: Sequence[Mapping[str, Any]], vectors: NDArray[np.float32], size: int) -> None:
        self._tools, self._vectors, self._size = tools, vectors, size
        self._rng = np.random.default_rng(SEED)
        self._pending: dict[str, tuple[int, int, float]] = {}

    def documents(self) -> Iterator[Any]:
        """One document after the other."""
        from orchestrator.tool_search.columns import text_digest
        from orchestrator.tool_search.document import document_of_row

        for number in range(self._size):
            first, second = (int(i) for i in self._rng.integers(0, len(self._tools), 2))
            document = document_of_row(json.dumps(self._tool(number, first, second)).encode())
            self._pending[text_digest(document.text)] = (first, second, float(self._rng.uniform(0.3, 0.7)))
            yield document

    def _tool(self, number: int, first: int, second: int) -> dict[str, Any]:
        a, b = self._tools[first], self._tools[second]
        params = [*a["params"][::2], *b["params"][1::2]]
        names = dict.fromkeys(str(p[0]) or "value" for p in params)
        said = {str(p[0]) or "value": str(p[1] or "") for p in params}
        half_a, half_b = str(a["description"]).split(" "), str(b["description"]).split(" ")
        return {
            "name": f"{_plain(a['name'])}_{_plain(b['name'])}_{number}",
            "description": " ".join([*half_a[: len(half_a) // 2 + 1], *half_b[len(half_b) // 2 :]]),
            "server": f"server{number % 211}",
            "tags": [f"tag{number % 97}"],
            "parameters": [{"name": n, "description": said[n]} for n in names],
        }

    def vectors(self, digests: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors of what was just made."""
        made = [(d, *self._pending.pop(d)) for d in digests if d in self._pending]
        a, b = self._vectors[[m[1] for m in made]], self._vectors[[m[2] for m in made]]
        share = np.array([m[3] for m in made], np.float32)[:, None]
        noise = self._rng.standard_normal(a.shape, np.float32)
        mixed = share * a + (1 - share) * b
        mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
        mixed += NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
        return {m[0]: v for m, v in zip(made, mixed, strict=True)}


def _plain(name: str) -> str:
    return "".join(c for c in name if c.isalnum())[:40]


def encode(home: Path, queries: int) -> dict[str, Any]:
    """The vectors of all that is real."""
    encoded(home, "tools", [f"{t['name']}: {t['description']}" for t in real_tools()])
    encoded(home, "queries", real_queries(queries))
    return {}


def build(home: Path, size: int) -> dict[str, Any]:
    """A snapshot of so many tools; what it took."""
    from orchestrator.tool_search import merge

    tools = real_tools()
    vectors = encoded(home, "tools", [f"{t['name']}: {t['description']}" for t in tools])
    mixed = Mixed(tools, vectors, size)
    began, cpu = time.perf_counter(), time.process_time()
    folder = merge.build(mixed.documents(), home / str(size), generation=1, model="mixed", vectors=mixed.vectors)
    return {
        "folder": str(folder),
        "build_s": time.perf_counter() - began,
        "build_cpu_s": time.process_time() - cpu,
        "build_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "disk_mb": sum(f.stat().st_size for f in folder.iterdir()) / 2**20,
    }


def serve(home: Path, folder: Path, queries: int) -> dict[str, Any]:
    """Opens a snapshot and searches it, as the index service does."""
    from orchestrator.models.search import Filters
    from orchestrator.tool_search import merge
    from orchestrator.tool_search.analysis import terms
    from orchestrator.tool_search.index import Query

    texts = real_queries(queries)
    vectors = encoded(home, "queries", texts)
    before = _resident_mb()
    began = time.perf_counter()
    index = merge.open_index(folder)
    opened = time.perf_counter() - began
    asked = [Query(t, tuple(terms(t)), v) for t, v in zip(texts, vectors, strict=True)]
    index.search(asked[0], K)
    first = time.perf_counter() - began
    began = time.perf_counter()
    merge.open_index(folder, full=True)
    checked = time.perf_counter() - began
    report: dict[str, Any] = {"start_s": opened, "first_answer_s": first, "checked_start_s": checked}
    words = [Query(q.text, q.terms) for q in asked]
    every = Filters()
    kinds = [(words, every), (asked, every), (asked, Filters(servers=("server5",))), (asked, Filters(servers=SOME_SERVERS))]
    for name, (qs, filters) in zip(TIMED, kinds, strict=True):
        mask = index.mask(filters)
        for q in qs:
            index.search(q, K, mask=mask)  # pages of the files are there afterwards, as in a process that serves for a while
        report[name] = _timed(lambda q, mask=mask: index.search(q, K, mask=mask), qs)
    report["memory_mb"], report["memory_before_mb"] = _resident_mb(), before
    report |= recall(index, asked)
    return report


def _timed(search: Any, queries: Sequence[Any]) -> dict[str, float]:
    wall, cpu = [], []
    for query in queries:
        began, thread = time.perf_counter(), time.thread_time()
        search(query)
        cpu.append(1e3 * (time.thread_time() - thread))
        wall.append(1e3 * (time.perf_counter() - began))
    names = ("wall_p50", "wall_p95", "cpu_p50", "cpu_p95")
    return dict(zip(names, map(float, (*np.percentile(wall, [50, 95]), *np.percentile(cpu, [50, 95]))), strict=True))


def recall(index: Any, queries: Sequence[Any]) -> dict[str, float]:
    """Which share of the ten best, all tools scored exactly, each half and both together find."""
    from orchestrator.tool_search.fusion import DEFAULT, fuse

    base = index.base
    asked = np.stack([q.vector for q in queries])
    cosines = np.empty((len(base), len(queries)), np.float16)
    for start in range(0, len(base), 50_000):
        part = base.matrix[start : start + 50_000].astype(np.float32)
        cosines[start : start + len(part)] = part @ asked.T
    shares: dict[str, list[float]] = {"recall_vectors": [], "recall_words": [], "recall_both": [], "score_both": []}
    for n, query in enumerate(queries):
        exact_cosine = (cosines[:, n]).astype(np.float32)
        terms, worth = index._worth(query.terms)
        exact_words = base.forward.scores(worth, index._average)
        nearest = base.vectors.nearest(query.vector, 100, None)
        kept = nearest[np.argsort(-base.vectors.cosines(query.vector, nearest))[:K]]
        shares["recall_vectors"].append(_share(exact_cosine, kept))
        rows = base.by_words(worth, terms, average=index._average, most=200, mask=None)
        if (exact_words > 0).any():
            shares["recall_words"].append(_share(exact_words, rows[np.argsort(-exact_words[rows])[:K]]))
        exact = np.asarray(fuse(exact_words, exact_cosine, DEFAULT))
        found = index.search(query, K).ids
        shares["recall_both"].append(_share(exact, found))
        shares["score_both"].append(float(exact[found].sum() / np.sort(exact)[-K:].sum()))
    return {name: float(np.mean(values)) for name, values in shares.items()}


def _share(exact: NDArray[np.floating], found: NDArray[np.integer]) -> float:
    """Of the ten best, as good as the tenth counts: many are equal."""
    wanted = min(K, int((exact > 0).sum()))
    least = np.partition(exact, len(exact) - wanted)[len(exact) - wanted]
    return float((exact[found[:wanted]] >= least - 1e-3).sum() / wanted)


def _resident_mb() -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return float(fields["VmRSS"].split()[0]) / 1024


def _child(*arguments: str) -> dict[str, Any]:
    """A part in a process of its own, so that memory is its own."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bench.tool_search_scale", "--child", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, cwd=Path(__file__).resolve().parents[1])
    found: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    return found


def run(sizes: Sequence[int], queries: int, home: Path) -> list[dict[str, Any]]:
    """Builds and searches a catalog of each size."""
    home.mkdir(parents=True, exist_ok=True)
    _child("encode", str(home), "", str(queries))
    reports = []
    for size in sizes:
        built = _child("build", str(home), str(size), "0")
        reports.append({"tools": size} | built | _child("serve", str(home), built["folder"], str(queries)))
        _print(reports[-1])
    return reports


def _print(r: Mapping[str, Any]) -> None:
    print(
        f"\n{r['tools']:,} tools: built in {r['build_s']:.1f} s ({r['build_cpu_s']:.1f} s CPU, peak {r['build_peak_mb']:.0f} MB), "
        f"{r['disk_mb']:.0f} MB on disk\n"
        f"  opened in {r['start_s']:.2f} s, first answer after {r['first_answer_s']:.2f} s, with every byte checked "
        f"{r['checked_start_s']:.2f} s; {r['memory_mb']:.0f} MB resident ({r['memory_before_mb']:.0f} before it was opened)"
    )
    for name in TIMED:
        times = "   ".join(
            f"{kind} p50 {r[name][f'{kind}_p50']:6.2f}  p95 {r[name][f'{kind}_p95']:6.2f} ms" for kind in ("cpu", "wall")
        )
        print(f"  {name:20} {times}")
    shares = ", ".join(f"{half} {r[f'recall_{half}']:.3f}" for half in ("vectors", "words", "both"))
    print(f"  recall@{K}: {shares}; score of what both found, of the best possible: {r['score_both']:.4f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--full", action="store_true", help="up to a million tools: some minutes, 4 GB of disk")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--home", type=Path, help="where catalogs are kept; default: nowhere")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    said = parser.parse_args(arguments)
    if said.child:
        part, home, what, queries = said.child
        parts = {
            "encode": lambda: encode(Path(home), int(queries)),
            "build": lambda: build(Path(home), int(what)),
            "serve": lambda: serve(Path(home), Path(what), int(queries)),
        }
        print(json.dumps(parts[part]()))
        return
    with tempfile.TemporaryDirectory() as folder:
        run(FULL if said.full else said.sizes, said.queries, said.home or Path(folder))


if __name__ == "__main__":
    main()
