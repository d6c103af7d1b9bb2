"""Complete search over batches of domains."""
