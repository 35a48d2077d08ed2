"""Nothing is reported to anybody: onnxruntime is told so before it is imported."""

from __future__ import annotations

import os
import subprocess
import sys


def test_the_ocr_pool_turns_telemetry_off_before_it_loads_its_runtime() -> None:
    code = "import sys, os, workers.ocr; assert 'onnxruntime' not in sys.modules; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout == "1\n"
