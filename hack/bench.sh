#!/usr/bin/env bash
# usage: hack/bench.sh [OPTIONS of python -m hack.bench]
# Measures Darner as its image has it, the scheduler compiled, and what a user would take instead; docs/benchmarks.md is what came out last. Takes root.
set -euo pipefail
cd "$(dirname "$0")/.."

hack/setup.sh
# A Python for which libtorrent has no wheel measures without it, and the table says so.
.venv/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r requirements-bench.txt ||
    echo 'hack/bench.sh: libtorrent cannot be installed here; measuring without it' >&2
exec hack/compiled.sh .venv/bin/python -m hack.bench "$@"
