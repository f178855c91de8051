"""Pressmark: generative-retrieval recommendation on Semantic IDs (SIDs)."""

from pressmark.load import LoadedRecommender, Recommended, load
from pressmark.recommender import Recommendations, Recommender, Requests

__all__ = ["LoadedRecommender", "Recommendations", "Recommended", "Recommender", "Requests", "load"]
