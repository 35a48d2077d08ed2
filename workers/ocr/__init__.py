"""The pool that reads images."""

import os

# onnxruntime reports its use to its maker unless it is told not to before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Tesseract takes three times as long when its threads wait for each other: the pool has a process per core or so.
os.environ.setdefault("OMP_THREAD_LIMIT", "1")
