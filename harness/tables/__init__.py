"""The tables that a sweep leaves behind."""
