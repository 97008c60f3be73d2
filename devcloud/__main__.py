"""`python -m devcloud`."""

from devcloud.cli import app

app(prog_name="devcloud")
