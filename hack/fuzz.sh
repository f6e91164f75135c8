#!/usr/bin/env bash
# usage: hack/fuzz.sh [OPTIONS of python -m hack.fuzz]
# Looks for inputs that break the parsers which strangers reach, a minute for each of them, by coverage.
set -euo pipefail
cd "$(dirname "$0")/.."

.venv/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r requirements-fuzz.txt || {
    echo 'hack/fuzz.sh: atheris, the fuzzer, has nothing for this Python or this machine' >&2
    exit 1
}
exec .venv/bin/python -m hack.fuzz "$@"
