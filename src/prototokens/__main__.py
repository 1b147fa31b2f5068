"""`python -m prototokens`: the command line, where its script is not on the path."""

from prototokens.cli import main

if __name__ == "__main__":
    main()
