"""Generator and dense retrieval as one recommender that knows what it does not know yet."""
