"""Small programs of our own around the platform, a package each; none uses anything else of this repository."""
