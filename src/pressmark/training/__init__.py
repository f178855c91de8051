"""One Accelerate loop and its checkpoints."""
