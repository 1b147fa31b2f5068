"""The `.ptok` file: its content, reading and writing, and the sources of a text."""
