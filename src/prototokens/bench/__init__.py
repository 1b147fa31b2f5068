"""Side by side: the published way of fitting and this engine, on the same machine, model and texts, in one run."""
