"""Faults, each done to a platform of real processes while jobs run: nothing is lost, stuck, committed or done twice."""
