"""What a product is: items, the category tree, text vectors, and the synthetic grocery store."""
