"""Looking into a run: the doctor of its tokenizer."""
