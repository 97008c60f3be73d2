#!/usr/bin/env bash
# OpenStack: `openstack --os-cloud lab` works in another project than openstacksdk does with the same entry.
#
# With:      python-openstackclient 10.5.0, openstacksdk 4.22.0; no cloud is asked.
# Data:      clouds.yaml with an entry `lab` of project `course`, and a shell in which OS_PROJECT_NAME=thesis is left from
#            another cloud's openrc file. The user has both projects.
# Expected:  the project of the named entry, for both; or the variable's, for both.
# Seen:      the command takes the entry's address, user and password, and the variable's project. openstacksdk takes
#            all from the entry. So a script that creates with the SDK and a person who lists or deletes with
#            the command look at two projects, and neither is told. The other variables of that openrc
#            file (OS_AUTH_URL, OS_USERNAME, OS_PASSWORD) do not count for the command either.
# Way out:   unset every OS_* variable but OS_CLOUD.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  python-openstackclient==10.5.0 openstacksdk==4.22.0 || exit 2

cd "$work"
cat > clouds.yaml <<'YAML'
clouds:
  lab:
    auth:
      auth_url: https://lab.example.org:5000/v3
      username: ada
      password: a password
      project_name: course
      project_domain_name: Default
      user_domain_name: Default
YAML
cat > ask.py <<'PY'
import json
import os
import subprocess
import sys

import openstack

NAMES = ("auth_url", "username", "password", "project_name")
command = [sys.argv[1], "--os-cloud", "lab", "configuration", "show", "--format", "json", "--unmask"]
answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
of_command = [answer[f"auth.{name}"] for name in NAMES]
of_sdk = [openstack.connect(cloud="lab").config.auth[name] for name in NAMES]
print("variables:", {name: value for name, value in os.environ.items() if name.startswith("OS_")})
for name, of_the_command, of_the_sdk in zip(NAMES, of_command, of_sdk):
    print(f"{name}: {of_the_command} (command), {of_the_sdk} (SDK)")
entry = ["https://lab.example.org:5000/v3", "ada", "a password"]
sys.exit(not (of_command == [*entry, "thesis"] and of_sdk == [*entry, "course"]))
PY
for name in $(compgen -e OS_ || true); do unset "$name"; done
export HOME=$work OS_CLIENT_CONFIG_FILE=$work/clouds.yaml
export OS_PROJECT_NAME=thesis
"$work/venv/bin/python" -W ignore ask.py "$work/venv/bin/openstack"
export OS_AUTH_URL=https://old.example.org:5000/v3 OS_USERNAME=bob OS_PASSWORD=other
"$work/venv/bin/python" -W ignore ask.py "$work/venv/bin/openstack"
