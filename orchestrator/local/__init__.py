"""The platform on one machine: an embedded Redis-protocol server and a supervisor of the operating-system processes."""
