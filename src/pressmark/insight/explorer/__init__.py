"""The explorer: a run as one page to look through."""
