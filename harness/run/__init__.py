"""Running stages: workers, events, progress, and the sweep as a whole."""
