"""Ready calls become chords: what waits for what, what is published, what a finished step sets free."""
