"""The report's sections: pure functions from a sweep's tables to what a template shows."""
