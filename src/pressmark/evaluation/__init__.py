"""Protocols, intervals and the report."""
