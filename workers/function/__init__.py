"""The pool of deterministic functions."""
