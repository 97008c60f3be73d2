"""As many resources as asked for, a tenth of them depending on the one before."""

import pulumi

config = pulumi.Config()
count = config.require_int("count")
size = config.get_int("size") or 1
previous = None
for index in range(count):
    options = pulumi.ResourceOptions(depends_on=[previous] if previous is not None and index % 10 == 0 else [])
    changed = size if index == count // 2 else 1
    previous = pulumi.CustomResource(
        "bench:index:Thing", f"thing-{index}", {"name": f"thing-{index}", "size": changed, "text": "x" * 200}, options
    )
pulumi.export("count", count)
