"""Tests of plans: what breaks them, what does not, and whether the check can tell."""
