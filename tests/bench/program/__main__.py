# mypy: disable-error-code="no-untyped-def,assignment"
"""As many resources as asked for, a tenth of them depending on the one before."""

import pulumi
from pulumi import dynamic


class Provider(dynamic.ResourceProvider):
    """Does nothing, as the plugin of this benchmark does nothing."""

    def create(self, props):
        return dynamic.CreateResult(props["name"], props)

    def diff(self, _id, olds, news):
        return dynamic.DiffResult(changes=olds["size"] != news["size"])

    def update(self, _id, _olds, news):
        return dynamic.UpdateResult(news)


class Dynamic(dynamic.Resource):
    """A resource whose provider is the program's own."""


config = pulumi.Config()
count = config.require_int("count")
size = config.get_int("size") or 1
provider = Provider()
previous = None
for index in range(count):
    options = pulumi.ResourceOptions(depends_on=[previous] if previous is not None and index % 10 == 0 else [])
    changed = size if index == count // 2 else 1
    inputs = {"name": f"thing-{index}", "size": changed, "text": "x" * 200}
    if config.get_bool("dynamic"):
        previous = Dynamic(provider, f"thing-{index}", inputs, options)
    else:
        previous = pulumi.CustomResource("bench:index:Thing", f"thing-{index}", inputs, options)
pulumi.export("count", count)
