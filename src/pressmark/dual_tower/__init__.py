"""The judge's main baseline: two towers and a FAISS index."""
