"""The bundled receipts: what is printed on them (`truth.json`) and how they were drawn (`render.py`)."""
