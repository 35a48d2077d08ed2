"""The pool that runs programs, each in a hardened container of its own."""
