"""Preference-optimisation algorithms, a page each."""
