"""Training of an encoder, from a source of texts to a finished folder."""
