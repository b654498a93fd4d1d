"""What was computed and what was asked: artifacts and verdicts."""
