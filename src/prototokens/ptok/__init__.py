"""The `.ptok` file: what is in it, how it is written and read, and the sources that it is made from."""
