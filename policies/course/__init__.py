"""The policy pack of a course: see docs/how-to/class.md."""
