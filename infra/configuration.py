"""Reads the settings of the stack that Pulumi runs the program for."""

from pathlib import Path

import pulumi
from pulumi.runtime import config

from infra.settings import Settings, SettingsError, load_settings


def stack_file() -> Path:
    """The stack file in the project folder, in which both engines run the program."""
    return Path.cwd() / f"Pulumi.{pulumi.get_stack()}.yaml"


def read_settings() -> Settings:
    """The settings of this stack.

    Raises pulumi.RunError, which Pulumi shows without a traceback, with all errors.
    """
    # pulumi.Config only returns known keys, so misspelt ones would be missed.
    raw = {**config.get_config_env(), **config.CONFIG.get()}
    secret_keys = [key for key in raw if config.is_config_secret(key) or key in config.get_config_secret_keys_env()]
    try:
        return load_settings(raw, stack_file(), stack=pulumi.get_stack(), secret_keys=secret_keys)
    except SettingsError as error:
        raise pulumi.RunError(str(error)) from None
