"""Categories under audit: which products stand on the wrong shelf, and where those without one belong."""
