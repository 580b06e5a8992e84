"""Training of patch classifiers, from a recipe to a bundle."""
