"""Redis: the connection, the one builder of keys, the script loader."""
