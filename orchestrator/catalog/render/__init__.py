"""Tools in the forms that others read: Python stubs and each vendor's request format. The only place that makes them."""

from orchestrator.catalog.render.mapping import Names
from orchestrator.catalog.render.stubs import StubGenerator
from orchestrator.catalog.render.vendors import Rendered, VendorName, render

__all__ = ["Names", "Rendered", "StubGenerator", "VendorName", "render"]
