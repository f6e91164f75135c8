#!/usr/bin/env bash
# Prints the path of an archive that holds Darner's image, and builds it first if this tree's has not been built yet: a minute or two
# the first time, half a minute after a change of the code.
#
#   hack/cluster/image.sh [--architecture amd64|arm64] [NAME]
#
# For another architecture than this machine's, the machine has to run its programs (qemu as binfmt_misc has it).
#
# The project's Dockerfile on a base of Debian's Python, without a registry: mmdebstrap fetches the packages, pip the wheels, and
# buildah puts both together with no network. The base that it is built on has a compiler as well. Kept in
# ${DARNER_CACHE:-~/.cache/darner}/image under names that change with whatever they are made from. Messages go to standard error.
set -euo pipefail

self=$(readlink -f "$0")
tree=$(readlink -f "${self%/*}/../..")
cache=${DARNER_CACHE:-$HOME/.cache/darner}/image
native=$(dpkg --print-architecture) architecture=
if [ "${1:-}" = --architecture ]; then
    architecture=$2
    shift 2
fi
architecture=${architecture:-$native}
name=${1:-darner.dev/darner:$(awk '$1 == "appVersion:" { gsub(/"/, "", $2); print $2 }' "$tree/charts/darner/Chart.yaml")}
suite=bookworm python=3.11
storage_kilobytes_max=4000000 archives_max=4

digest() { cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-12; }

# What the image is made of is taken aside first: somebody may be editing the tree.
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
(cd "$tree" && tar --create --exclude __pycache__ Dockerfile .dockerignore LICENSE README.md pyproject.toml requirements*.txt \
    setup.py agent cli supernode webhook) | tar --extract --directory "$context"
archive=$cache/darner-$(
    digest "$context"
    sha256sum <"$self" | cut -c1-6
    sha256sum <<<"$name" | cut -c1-6
    echo "$architecture"
)
archive=${archive//$'\n'/-}.tar
if [ -e "$archive" ]; then
    touch "$archive"
    echo "$archive"
    exit
fi

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9 # two clusters may ask at the same time

form=$suite-$(sha256sum <"$self" | cut -c1-12)-$architecture
packages=base-files,ca-certificates,coreutils,dash,libc-bin,netbase,python3,python3-venv,sed
make_base() {
    [ ! -e "$cache/$1.tar" ] || return 0
    echo "image.sh: making a base of Debian $suite's Python with $2" >&2
    # Unpacked and no more: an image needs no package manager. What maintainer scripts would have done is done here. What the packages
    # are is told one by one in var/lib/dpkg/status.d, where scanners look for it in images without dpkg, and hack/release/sbom.py too.
    mmdebstrap --quiet --format=tar --variant=extract --architectures="$architecture" --include="$packages$3" \
        --extract-hook='rm -rf "$1/var/lib/dpkg" && mkdir -p "$1/var/lib/dpkg/status.d"' \
        --extract-hook='cd "$1/var/lib/dpkg/status.d"
            for deb in "$1"/var/cache/apt/archives/*.deb; do dpkg-deb --field "$deb" >"$(dpkg-deb --field "$deb" Package)"; done' \
        --extract-hook='cat "$1"/usr/share/ca-certificates/*/*.crt >"$1/etc/ssl/certs/ca-certificates.crt"' \
        --extract-hook='printf "root:x:0:0::/root:/bin/sh\nnonroot:x:65532:65532::/:/bin/sh\n" >"$1/etc/passwd"' \
        --extract-hook='printf "root:x:0:\nnonroot:x:65532:\n" >"$1/etc/group"' \
        --extract-hook='ln -sf dash "$1/bin/sh"' \
        --extract-hook='cd "$1" && rm -rf usr/share/doc usr/share/info usr/share/locale usr/share/man usr/lib/*/gconv var/cache/*' \
        --extract-hook='cd "$1" && rm -rf boot usr/share/bash-completion usr/share/lintian usr/lib/python'$python'/pydoc_data' \
        "$suite" "$cache/$1.part" >&2
    mv "$cache/$1.part" "$cache/$1.tar"
}
base=base-$form build_base=base-build-$form
# Those of earlier forms of this script go.
find "$cache" -maxdepth 1 -name "base-*$architecture.tar" ! -name "$base.tar" ! -name "$build_base.tar" -delete
make_base "$base" 'nothing else' ''
make_base "$build_base" 'a compiler' ,gcc,libc6-dev,python3-dev

# The packages that the Dockerfile takes from the second list, some of which are in the first one as well.
tools='setuptools|ast-serialize|librt|mypy|mypy-extensions|pathspec'
sed -nE "/^($tools)==/,/[^\\]\$/p" "$context/requirements-dev.txt" | cat "$context/requirements.txt" - >"$context.wheels"
wheels=$cache/wheels-$python-$architecture-$(sha256sum <"$context.wheels" | cut -c1-12)
if [ ! -e "$wheels" ]; then
    echo "image.sh: downloading the wheels" >&2
    rm -rf "$wheels.part"
    machine=$(sed 's/amd64/x86_64/; s/arm64/aarch64/' <<<"$architecture")
    mapfile -t platforms < <(printf -- '--platform=%s_'"$machine"'\n' manylinux_2_{34,28,17} manylinux2014)
    "$tree/.venv/bin/python" -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
        --python-version $python "${platforms[@]}" --requirement "$context.wheels" --dest "$wheels.part" >&2
    mv "$wheels.part" "$wheels"
fi
rm "$context.wheels"

echo "image.sh: building $name" >&2
storage=$cache/storage
if [ -e "$storage" ] && (($(du -sk "$storage" | cut -f1) > storage_kilobytes_max)); then
    rm -rf "$storage"
fi
export STORAGE_DRIVER=overlay BUILDAH_ISOLATION=chroot
builder=(buildah --root "$storage" --runroot /run/darner-buildah)
take_in() {
    ! "${builder[@]}" inspect --type image "localhost/$1" >/dev/null 2>&1 || return 0
    mkdir "$context/base"
    ln "$cache/$1.tar" "$context/base/base.tar" 2>/dev/null || cp "$cache/$1.tar" "$context/base/base.tar"
    printf 'FROM scratch\nADD base.tar /\n' | "${builder[@]}" build --quiet --arch "$architecture" --tag "localhost/$1" --file - \
        "$context/base" >/dev/null
    rm -r "$context/base"
}
take_in "$base"
take_in "$build_base"
"${builder[@]}" build --quiet --layers --arch "$architecture" --tag "$name" --volume "$wheels:/wheels:ro" \
    --build-arg BASE="localhost/$base" --build-arg BUILD_BASE="localhost/$build_base" \
    --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/wheels --build-arg PIP_INDEX_URL= --build-arg PIP_CERT= "$context" >/dev/null
rm -f "$archive.part"
"${builder[@]}" push --quiet "$name" "docker-archive:$archive.part:$name" >&2
mv "$archive.part" "$archive"
find "$cache" -maxdepth 1 -name 'darner-*.tar' -printf '%T@ %p\n' | sort -rn | tail -n +$((archives_max + 1)) | cut -d' ' -f2- | xargs -r rm
echo "$archive"
