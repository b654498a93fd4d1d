"""Estimates, intervals and comparisons."""
