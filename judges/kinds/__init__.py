"""The kinds of judge."""
