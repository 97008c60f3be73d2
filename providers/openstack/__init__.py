"""The OpenStack resource provider, on openstacksdk, with the official plugin's types, names and rules.

Each module of this package owns some services and publishes two lists, which ``__main__`` joins::

    TYPES: list[ResourceType[Cloud]]
    FUNCTIONS: list[Function[Cloud]]

``providers.framework`` explains resource types and functions, ``client`` the cloud they talk to, ``rest`` the base
class for the many types that are one REST collection with attributes.
"""
