"""Who may do what, and how much of it: keys, permissions, limits, and the log of who did what."""
