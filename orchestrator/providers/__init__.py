"""Models behind small protocols: chat models that answer by JSON schema, and embedders. Importing the room loads none."""
