"""The context of a verb: the project, its backend, the selected stack, its configuration and its secrets."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from cli.errors import ExitCode, LabError
from cli.workspace import select_stack, selected_stack, settings_path

if TYPE_CHECKING:
    from engine.backend import Backend
    from engine.project import Project, StackConfig
    from engine.secrets import SecretsManager

ROOT = Path(__file__).resolve().parent.parent
CREATE_CHOICE = "<create a new stack>"
STACK_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")

Engine = Literal["embedded", "pulumi"]


def passphrase_file() -> Path:
    """File with the generated passphrase."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "ml-cluster" / "passphrase"


def confirmations_skipped() -> bool:
    """Whether PULUMI_SKIP_CONFIRMATIONS says --yes for every command."""
    return os.environ.get("PULUMI_SKIP_CONFIRMATIONS", "").lower() in {"1", "true"}


def confirm(session: Session, yes: bool, what: str) -> None:
    """Print what is about to be done, and ask for confirmation unless `yes`.

    Raises:
        LabError: the user declines, or cannot be asked.
    """
    print(what, file=sys.stderr)
    if yes or confirmations_skipped():
        return
    if not session.interactive:
        raise LabError("--yes must be passed in to proceed in non-interactive mode", code=ExitCode.CONFIGURATION)
    if not typer.confirm("Do you want to continue?", err=True):
        raise LabError("confirmation declined")


def choose(question: str, choices: list[str], default: str) -> str:
    """Ask the user for one of `choices`; enter is `default`.

    Raises:
        typer.Abort: the user pressed ^C.
    """
    while True:
        answer = str(typer.prompt(f"{question} ({'/'.join(choices)})", default=default))
        if answer in choices:
            return answer
        print(f"Please answer with one of: {', '.join(choices)}")


def _resolve(url: str, base: Path) -> str:
    """`url` with the path of a `file://` URL made absolute; `~` is the home directory."""
    if not url.startswith("file://"):
        return url
    path, _, query = url.removeprefix("file://").partition("?")
    return f"file://{(base / Path(path).expanduser()).resolve()}{'?' + query if query else ''}"


@dataclass
class Session:
    """The global options, and what depends on them, opened on first use."""

    cwd: Path
    stack_option: str | None
    engine: Engine
    interactive: bool
    color: str
    verbose: bool

    @cached_property
    def project(self) -> Project:
        """The project around `cwd`."""
        from engine.project import Project

        return Project.find(self.cwd)

    @cached_property
    def backend_url(self) -> str:
        """The backend's URL as configured, which is also the CLI's key for the selected stack."""
        from engine.backend import default_backend_url

        return default_backend_url(self.project)

    @cached_property
    def resolved_backend_url(self) -> str:
        """`backend_url` with a relative path resolved: against the project where it is the project's, else `cwd`."""
        from_environment = "PULUMI_BACKEND_URL" in os.environ
        return _resolve(self.backend_url, self.cwd if from_environment else self.project.root)

    @cached_property
    def backend(self) -> Backend:
        """The state backend."""
        from engine.backend import open_backend

        return open_backend(self.resolved_backend_url)

    def on(self, stack: str) -> Session:
        """A non-interactive session for `stack`."""
        return replace(self, stack_option=stack, interactive=False, color="never")

    # Stacks

    @cached_property
    def _settings_path(self) -> Path:
        return settings_path(self.project.name, self.project.file)

    def parse_stack(self, reference: str) -> str:
        """The name in a stack reference: `<stack>`, `<project>/<stack>` or `organization/<project>/<stack>`.

        Raises:
            LabError: the name is not one that a backend accepts, or the stack is of another project.
        """
        *owner, name = reference.split("/")
        if owner not in ([], [self.project.name], ["organization"], ["organization", self.project.name]):
            raise LabError(
                f"stack '{reference}' is not one of project '{self.project.name}'", code=ExitCode.CONFIGURATION
            )
        if not STACK_NAME.fullmatch(name):
            raise LabError(
                f"'{name}' is not a valid stack name",
                remedy="use up to 100 letters, digits, hyphens, underscores and periods",
                code=ExitCode.CONFIGURATION,
            )
        return name

    def current_stack(self) -> str | None:
        """The stack selected by PULUMI_STACK or `stack select`; it may not exist."""
        reference = os.environ.get("PULUMI_STACK") or selected_stack(self._settings_path, self.backend_url)
        return self.parse_stack(reference) if reference else None

    def select(self, stack: str | None) -> None:
        """Make `stack` the current one; None unselects."""
        name = f"organization/{self.project.name}/{stack}" if stack else None
        select_stack(self._settings_path, self.backend_url, name)

    def stack(self, argument: str | None = None, *, offer_new: bool = False) -> str:
        """The name of the stack to work on: `argument`, --stack, or the current one.

        On a terminal the user is asked to choose one, or, with `offer_new`, to create it.

        Raises:
            LabError: there is none, or it does not exist.
        """
        if argument and self.stack_option:
            raise LabError(
                "only one of --stack or argument stack name may be specified, not both", code=ExitCode.CONFIGURATION
            )
        if reference := argument or self.stack_option:
            name = self.parse_stack(reference)
            if self.backend.exists(self.project.name, name):
                return name
            if not (offer_new and self.interactive):
                raise LabError(
                    f"no stack named '{name}' found",
                    remedy=f"create it with `lab stack init {name}`; `lab stack ls` lists existing stacks",
                    code=ExitCode.STACK_NOT_FOUND,
                )
            print(f"The stack '{name}' does not exist.\n")
            typer.prompt(
                "If you would like to create this stack now, please press <ENTER>, otherwise press ^C",
                default="",
                show_default=False,
                prompt_suffix=" ",
            )
            return self.create_stack(name)
        current = self.current_stack()
        if current and self.backend.exists(self.project.name, current):
            return current
        if not self.interactive:
            names = sorted(summary.name for summary in self.backend.list_stacks(self.project.name))
            raise LabError(
                "no stack selected; please use `lab stack select` or `lab stack init` to choose one"
                if offer_new
                else "no stack selected; please use `lab stack select` to choose one",
                remedy=f"or use --stack; existing stacks: {', '.join(names)}" if names else self._first_stack(),
            )
        return self.choose_stack(offer_new=offer_new)

    def _first_stack(self) -> str:
        """What to do if there is no stack yet, with the stack files that exist."""
        files = self.project.stack_config_path("*")
        ready = sorted(path.stem.removeprefix("Pulumi.") for path in files.parent.glob(files.name))
        choice = f", where NAME is one of {', '.join(ready)}, or a new name" if ready else ""
        return f"there are no stacks yet; create one with `lab stack init NAME`{choice}"

    def choose_stack(self, *, offer_new: bool) -> str:
        """Ask which stack to use.

        Raises:
            LabError: there is none to choose from.
        """
        existing = sorted(summary.name for summary in self.backend.list_stacks(self.project.name))
        choices = [*existing, CREATE_CHOICE] if offer_new else existing
        if not choices:
            raise LabError("this command requires a stack, but there are none", code=ExitCode.STACK_NOT_FOUND)
        print("Please choose a stack" + (", or create a new one:" if offer_new else ":"))
        for number, choice in enumerate(choices, 1):
            print(f"  {number}. {choice}")
        numbers = [str(number) for number in range(1, len(choices) + 1)]
        answer = choices[int(choose("Stack", numbers, default="1")) - 1]
        if answer != CREATE_CHOICE:
            return answer
        return self.create_stack(
            self.parse_stack(str(typer.prompt("Please enter your desired stack name", default="dev")))
        )

    def create_stack(self, name: str) -> str:
        """Create the stack, with the secrets provider that its configuration names or a new passphrase one."""
        config = self.config(name)
        self.backend.create_stack(self.project.name, name)
        try:
            self.secrets(name, config)
        except BaseException:
            self.backend.remove_stack(self.project.name, name, force=True)
            raise
        print(f"Created stack '{name}'", file=sys.stderr)
        return name

    # Configuration and secrets

    def config(self, stack: str) -> StackConfig:
        """The configuration file of `stack`, empty if it does not exist."""
        from engine.project import StackConfig

        return StackConfig.load(self.project, stack)

    def config_from(self, template: Path, stack: str) -> StackConfig:
        """The configuration of `stack` as the file `template` has it; saving it writes the stack's own file."""
        from engine.configfile import YamlFile
        from engine.project import StackConfig

        file = YamlFile(template)
        file.path = self.project.stack_config_path(stack)
        return StackConfig(self.project, stack, file)

    def secrets(self, stack: str, config: StackConfig) -> SecretsManager:
        """The secrets manager of `stack`: by its configuration, else its state, else a new one that is saved.

        Raises:
            PassphraseError: the stack uses another secrets provider, or the passphrase is missing or wrong.
        """
        from engine.secrets import PassphraseSecretsManager, require_passphrase_provider

        require_passphrase_provider(config.secrets_provider or "")
        if config.encryption_salt:
            return PassphraseSecretsManager.from_state({"salt": config.encryption_salt}, self.passphrase())
        if manager := self._state_secrets(stack):
            return manager
        created = PassphraseSecretsManager.create(self.passphrase(create=True))
        config.encryption_salt = created.state()["salt"]
        config.save()
        return created

    def state_secrets(self, stack: str) -> SecretsManager:
        """The secrets manager that the state of `stack` is encrypted with."""
        return self._state_secrets(stack) or self.secrets(stack, self.config(stack))

    def _state_secrets(self, stack: str) -> SecretsManager | None:
        from engine.secrets import open_secrets_manager

        deployment = self.backend.load(self.project.name, stack).get("deployment") or {}
        provider = deployment.get("secrets_providers") or {}
        return open_secrets_manager(provider, self.passphrase()) if provider.get("type") else None

    @staticmethod
    def offer_passphrase_file() -> None:
        """Set the environment variable of the generated passphrase, for the Pulumi CLI too, unless one is set."""
        path = passphrase_file()
        if not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & os.environ.keys() and path.exists():
            os.environ["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(path)

    def passphrase(self, *, create: bool = False) -> str:
        """The passphrase for secrets; with `create`, generate one if there is none.

        Raises:
            PassphraseError: there is none, and nobody can be asked.
        """
        from engine.secrets import find_passphrase, require_passphrase

        if (passphrase := find_passphrase()) is not None:
            return passphrase
        path = passphrase_file()
        if create and not path.exists():
            import secrets

            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
            print(
                f"Created a passphrase for secrets in {path}. Back it up: without it the secrets are lost.\n"
                f"For the Pulumi CLI: export PULUMI_CONFIG_PASSPHRASE_FILE={path}",
                file=sys.stderr,
            )
        self.offer_passphrase_file()
        if not path.exists() and self.interactive:
            prompt = "Enter your passphrase to unlock config/secrets\n    (set PULUMI_CONFIG_PASSPHRASE to remember)"
            os.environ["PULUMI_CONFIG_PASSPHRASE"] = str(typer.prompt(prompt, hide_input=True))
        return require_passphrase(find_passphrase())
