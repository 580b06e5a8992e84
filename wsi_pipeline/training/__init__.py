"""Training of patch classifiers: data, split by case, a small trainer, metrics."""
