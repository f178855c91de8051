"""Product to SID: residual quantizers, the taxonomy contrastive loss, batch sampling, collisions, quality."""
