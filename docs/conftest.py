"""The doctests of this folder are those of its pages, not of its scripts or of what the build makes."""

collect_ignore_glob = ["*.py", "_build", "api", "catalogue", "project"]
