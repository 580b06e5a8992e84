"""Networks and the bundles they come in."""
