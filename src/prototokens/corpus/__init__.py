"""A corpus of texts as a data set of vectors: made, read, decoded and verified."""
