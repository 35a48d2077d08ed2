"""Finds the right tools for a request among thousands: the library, and the index service that answers every planner."""
