#!/usr/bin/env bash
# Pins what pyproject.toml asks for, with the hash of every file of every release, so that any machine installs the same bytes.
# Run it after a change of the dependencies; `hack/lock.sh --upgrade` takes the newest releases.
set -euo pipefail
cd "$(dirname "$0")/.."

# The lists must come out alike everywhere, so no setting of this machine's pip may have a say in them.
export PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS='' PIP_DISABLE_PIP_VERSION_CHECK=1
unset PIP_INDEX_URL PIP_EXTRA_INDEX_URL

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"${PYTHON:-python3}" -m venv "$tools"
"$tools/bin/pip" install --quiet pip-tools==7.6.2

compile() {
    CUSTOM_COMPILE_COMMAND=hack/lock.sh "$tools/bin/pip-compile" --quiet --generate-hashes --strip-extras --allow-unsafe \
        --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header "$@" pyproject.toml
}

# With what people type, which the image has too.
compile "$@" --extra cli --output-file requirements.txt
# The product's pins bind the development list: tests run against exactly what is shipped.
compile "$@" --extra cli --extra dev --constraint requirements.txt --output-file requirements-dev.txt
compile "$@" --extra cli --extra bench --constraint requirements.txt --output-file requirements-bench.txt
compile "$@" --extra cli --extra fuzz --constraint requirements.txt --output-file requirements-fuzz.txt
