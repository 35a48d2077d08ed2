"""The pool that reads images."""

import os

# onnxruntime reports its use to its maker unless it is told not to before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
