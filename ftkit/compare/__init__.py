"""Systems side by side on one workload: fine-tuned, with retrieval, or both."""
