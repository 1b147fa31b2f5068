"""What is decided before a fit: where a text is cut, and the cost forecast."""
