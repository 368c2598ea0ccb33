"""Artifacts -> a package that an app takes as it is: one file for each kind of app."""
