"""What clip-retrieval writes: partitions of embeddings."""
