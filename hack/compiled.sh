#!/usr/bin/env bash
# usage: hack/compiled.sh               prints a directory that holds Darner as its image has it, the scheduler compiled
#        hack/compiled.sh COMMAND...    runs a command with that before the tree; with the tree alone, and a word, where nothing compiles
# The wheel is made as the Dockerfile makes it and kept in ${DARNER_CACHE:-~/.cache/darner}/compiled under a name that changes with all
# that it is made from, so what is beside the sources is never anything but sources.
set -euo pipefail

tree=$(readlink -f "${BASH_SOURCE[0]%/*}/..")
cache=${DARNER_CACHE:-$HOME/.cache/darner}/compiled
python=$tree/.venv/bin/python
parts=(LICENSE README.md pyproject.toml requirements-dev.txt setup.py agent cli supernode webhook)
kept_max=4

# Debian's compiler package has no headers of C, and a Python may have come without its own.
can_compile() {
    local include compiler
    include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    compiler=${CC:-$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("CC"))')}
    $compiler -I "$include" -fsyntax-only -x c - 2>/dev/null <<<'#include <Python.h>' # no pipe, which breaks if it is not read
}

# Prints the name for what is in a directory, to this Python.
name_of() {
    (
        cd "$1"
        find "${parts[@]}" -name __pycache__ -prune -o -type f -print0 | sort -z | xargs -0 sha256sum
        "$python" -VV
        sha256sum <"$tree/hack/compiled.sh"
    ) | sha256sum | cut -c1-16
}

build() {
    local aside=$1
    mkdir "$aside/wheels" "$aside/unpacked"
    DARNER_COMPILE=1 "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-index --no-build-isolation \
        --wheel-dir "$aside/wheels" "$aside/tree" >&2 &&
        "$python" -m zipfile -e "$aside"/wheels/darner-*.whl "$aside/unpacked"
}

directory() (
    mkdir -p "$cache"
    aside=$(mktemp -d "$cache/making.XXXXXX")
    trap 'rm -rf "$aside"' EXIT
    # Taken aside first: somebody may be editing the tree.
    mkdir "$aside/tree"
    (cd "$tree" && tar --create --exclude __pycache__ "${parts[@]}") | tar --extract --directory "$aside/tree"
    made=$cache/$(name_of "$aside/tree")
    exec 9>"$cache/lock"
    flock 9
    if [[ ! -d $made ]]; then
        can_compile || exit 1
        echo 'compiling the scheduler' >&2
        build "$aside" && mv "$aside/unpacked" "$made" || exit 1 # -e does not hold within a condition
    fi
    touch "$made"
    find "$cache" -mindepth 1 -maxdepth 1 -type d -name '[0-9a-f]*' -printf '%T@ %p\n' | sort -rn | tail -n +$((kept_max + 1)) |
        cut -d' ' -f2- | xargs -r rm -rf
    echo "$made"
)

if ! made=$(directory); then
    can_compile && exit 1
    echo 'hack/compiled.sh: no C compiler with the headers of C and of this Python: the scheduler runs uncompiled' >&2
    (($#)) || exit 1
    exec "$@"
fi
if (($#)); then
    # Python puts the current directory, where the sources are, before everything else unless it is told not to.
    export PYTHONSAFEPATH=1 PYTHONPATH=$made:$tree
    exec "$@"
fi
echo "$made"
