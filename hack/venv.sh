#!/usr/bin/env bash
# Makes .venv with the pinned requirements and the package itself, and does nothing when it is there already.
# Stamps hold what each part was made from, so neither a `git checkout` nor a second `make` installs anything again.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { echo "hack/venv.sh: $*" >&2; exit 1; }

# The first Python that is new enough; PYTHON=... picks one by hand.
find_python() {
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$name" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# Debian ships Python without the module that makes virtual environments.
python=$(find_python) || { hack/setup.sh python && python=$(find_python); } || die 'Python 3.11 or later (with its venv module) is needed; PYTHON=... names one'

requirements=$(cat requirements.txt requirements-dev.txt hack/venv.sh | sha256sum)
if [[ "$(cat .venv/requirements.stamp 2>/dev/null)" != "$requirements" || ! -x .venv/bin/python ]]; then
    echo "making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt -r requirements-dev.txt
    echo "$requirements" > .venv/requirements.stamp
fi

# Entry points and the list of packages are written when the package is installed, so it is installed again when they change.
package=$(sha256sum < pyproject.toml)
if [[ "$(cat .venv/package.stamp 2>/dev/null)" != "$package" ]]; then
    # Compiled, what lies beside the sources would be used in their place, however old.
    DARNER_COMPILE='' .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
    echo "$package" > .venv/package.stamp
fi
