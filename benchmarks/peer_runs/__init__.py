"""Scripts that run one program each over the same patches, in that program's own environment."""
