"""The sweep configuration: YAML to a checked, frozen model. Every error names the place and the nearest word."""

from harness.config.loading import load_config, naming_the_file
from harness.config.schema import Config, ConfigError, Entry, Game, PairOptions, TrainerEntry, Tune

__all__ = [
    "Config",
    "ConfigError",
    "Entry",
    "Game",
    "PairOptions",
    "TrainerEntry",
    "Tune",
    "load_config",
    "naming_the_file",
]
