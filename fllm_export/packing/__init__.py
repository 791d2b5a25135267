"""Everything that a deployment needs, in one directory: a Docker build context, or a model repository for Triton."""
