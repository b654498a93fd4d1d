"""The sweep configuration."""
