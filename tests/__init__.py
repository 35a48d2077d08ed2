"""Tests, and what they share."""

import os

# Read when numpy is loaded, here and in the processes that tests start: a second thread of BLAS only spins on two cores, and FAISS
# once waited for ever for one of its own.
for _library in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_library, "1")
