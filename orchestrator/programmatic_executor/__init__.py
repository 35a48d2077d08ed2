"""Programs that models write: checked, given stubs of the tools, run in a container by a worker."""
