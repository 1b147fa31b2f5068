"""The one place where the version is written: the build, the package and its files read it here."""

__version__ = "0.1.0"
