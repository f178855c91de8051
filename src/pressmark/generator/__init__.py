"""History to next SID: the seq2seq model, its samples, and trie-constrained beam search."""
