"""Tools in the forms that others read: Python stubs and each vendor's request format. The only place that makes them."""
