"""The pool that reads images."""
