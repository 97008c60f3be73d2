"""Writes fixtures/*.json with the Pulumi CLI: `LAB_TEST_ENGINE=pulumi python -m tests.engine.write_fixtures`.

Each holds a program, the deployment that `pulumi stack export` gave after `pulumi up`, and what then existed. Source
positions, which name paths of the machine, are left out.
"""

from __future__ import annotations

import json
import tempfile
import textwrap
from pathlib import Path

from tests.engine.harness import ENGINE, Stack

PROGRAMS = {
    "options": """
        a = Thing("a", value=1, secret=Output.secret("hush"), text=StringAsset("hello"))
        box = Box("box")
        b = Thing("b", value=a.computed, ref=a,
                  opts=ResourceOptions(parent=box, depends_on=[a], protect=True, ignore_changes=["other"],
                                       custom_timeouts=CustomTimeouts(create="5m"),
                                       additional_secret_outputs=["computed"]))
        north = Provider("north", region="north", token=Output.secret("hush"))
        Thing("n", opts=ResourceOptions(provider=north, deleted_with=a, delete_before_replace=True))
        export("b", b.computed)
    """,
    "values": """
        outer = Box("outer", type_="test:index:Outer")
        inner = Box("inner", ResourceOptions(parent=outer))
        folder = AssetArchive({"two": StringAsset("2")})
        leaf = Thing("leaf", none=None, number=1.5, big=2**40, text="ünïcödé <&>", truth=False, empty_list=[], empty={},
                     nested={"list": [1, [2, {"deep": Output.secret({"x": [1]})}]]},
                     archive=AssetArchive({"one": StringAsset("1"), "folder": folder}),
                     opts=ResourceOptions(parent=inner))
        inner.register_outputs({"leaf": leaf, "secret": Output.secret("hush")})
        outer.register_outputs({})
        export("leaf", leaf)
        export("outer", {"secret": Output.secret("hush"), "urns": [outer.urn, inner.urn]})
    """,
}


def main() -> None:
    assert ENGINE == "pulumi", "fixtures are what the Pulumi CLI writes: set LAB_TEST_ENGINE=pulumi"
    for name, program in PROGRAMS.items():
        with tempfile.TemporaryDirectory() as folder:
            stack = Stack(Path(folder) / "stack")
            stack.project_file()
            stack.program(program)
            stack.init()
            stack.up()
            exported = stack.export()
            for resource in exported["deployment"]["resources"]:
                for key in ("sourcePosition", "stackTrace"):
                    resource.pop(key, None)
            fixture = {
                "program": textwrap.dedent(program),
                "world": list(stack.existing().values()),
                "deployment": exported,
            }
            path = Path(__file__).parent / "fixtures" / f"{name}.json"
            path.write_text(json.dumps(fixture, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
