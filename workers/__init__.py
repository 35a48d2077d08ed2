"""Everything that does: worker pools, each loading only its own packages."""
