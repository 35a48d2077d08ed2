"""The pool of small tasks that need some understanding: by rules here."""
