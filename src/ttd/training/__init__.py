"""Fine-tuning with TTD: from image-text shards to a LoRA adapter."""
