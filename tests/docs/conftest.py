"""The platform of the end-to-end tests: made for these tests, unless LAB_TEST_PLATFORM names a stack that is up."""

from tests.e2e.conftest import cloud, deploy, devcloud, platform, student

__all__ = ["cloud", "deploy", "devcloud", "platform", "student"]
