"""Honest baselines that need little or no training."""
