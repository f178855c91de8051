"""Product terms: what a catalog calls its products, and which of that a title is about."""
