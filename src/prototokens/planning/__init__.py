"""What is decided before a fit: where a text is cut, and how many steps and seconds its chunks are expected to take."""
