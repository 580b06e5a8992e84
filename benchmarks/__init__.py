"""What is measured beside the tests: one command each, see docs/experiments.md."""
