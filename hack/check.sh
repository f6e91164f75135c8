#!/usr/bin/env bash
# Everything that can be said about the tree without running a test. All of it runs, then the failures are named.
set -uo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH

failed=()
check() {
    echo "== $*"
    "$@" || failed+=("$1 ${2:-}")
}

check ruff check .
check ruff format --check .
check mypy
check lint-imports
check python -m hack.pages --check
check hack/chart/lint.sh
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
NO_MKDOCS_2_WARNING=1 check mkdocs build --strict --quiet --site-dir "$site"

if ((${#failed[@]})); then
    printf 'make check failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
