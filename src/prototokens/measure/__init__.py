"""Numbers out of tensors: nothing here reads a file or loads a model."""
