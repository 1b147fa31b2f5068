"""The frozen language model: where it is loaded from, what is checked of it, and how its body is run."""
