"""Pressmark: generative-retrieval recommendation on Semantic IDs (SIDs)."""
