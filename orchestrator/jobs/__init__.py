"""The job's memory: store, ledger scripts, events, references and large values."""
