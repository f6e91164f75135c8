#!/usr/bin/env bash
# Makes a release of this tree, and publishes it with --push: docs/releasing.md.
#
#   hack/release.sh VERSION REGISTRY [--push] [--output DIRECTORY] [--no-transparency-log]
#
# Into DIRECTORY, dist/VERSION by default, come the image for each architecture that this machine can build, tied together in one
# index, its bills of materials, and the chart with the image's digest in it. With --push they go to REGISTRY/darner-image and
# REGISTRY/darner, and both are signed with the key in COSIGN_PRIVATE_KEY. Run again, it does what is still to be done: nothing, if
# all is there. What a registry has under a version is never replaced. The registry is spoken to over TLS; SSL_CERT_FILE names
# authorities of one's own, and credentials come from ~/.docker/config.json.
set -euo pipefail

usage='usage: hack/release.sh VERSION REGISTRY [--push] [--output DIRECTORY] [--no-transparency-log]'
say() { echo "release.sh: $*"; }
fail() {
    echo "release.sh: $*" >&2
    exit 1
}
misuse() {
    echo "release.sh: $*; $usage" >&2
    exit 2
}

push='' output='' log=true names=()
while (($#)); do
    case $1 in
    --push) push=yes ;;
    --no-transparency-log) log=false ;;
    --output)
        (($# > 1)) || misuse '--output takes a directory'
        output=$(realpath --canonicalize-missing "$2")
        shift
        ;;
    -*) misuse "there is no option $1" ;;
    *) names+=("$1") ;;
    esac
    shift
done
((${#names[@]} == 2)) || misuse 'say which version and which registry'
version=${names[0]} registry=${names[1]}
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z]([0-9A-Za-z.-]*[0-9A-Za-z])?)?$ ]] ||
    misuse "a version is 1.2.3 or 1.2.3-rc.1, not $version"
[[ $registry =~ ^[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9]+([._-][a-z0-9]+)*)*$ ]] ||
    misuse "a registry is HOST or HOST/PATH without https:// and in lower case, not $registry"

cd "$(dirname "$0")/.."
tree=$PWD python=$PWD/.venv/bin/python
output=${output:-$tree/dist/$version}
image=$registry/darner-image chart=$registry/darner
declared=$(awk '$1 == "version:" { print $2 }' charts/darner/Chart.yaml)
[ "${version%%-*}" = "$declared" ] ||
    fail "this tree is $declared (Chart.yaml and pyproject.toml), not ${version%%-*}; change it there first"
[ -x "$python" ] || fail 'there is no .venv; run: make venv'
for program in buildah mmdebstrap skopeo; do
    command -v $program >/dev/null || fail "there is no $program; hack/setup.sh installs it"
done
if [ "$push" ]; then
    [ "${COSIGN_PRIVATE_KEY:-}" ] || fail 'COSIGN_PRIVATE_KEY holds no key to sign with; docs/releasing.md says how to make one'
    [ -v COSIGN_PASSWORD ] || fail 'COSIGN_PASSWORD is not set; it is the password of COSIGN_PRIVATE_KEY'
fi
helm=$(hack/chart/tool.sh helm)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$output"

# A step that is allowed to fail says why in one line: the last one of its tool, without the form of a log.
reason() { tail -n 1 "$scratch/said" | sed -E 's/^time="[^"]*" level=[a-z]+ msg=//'; }
attempt() { # WHAT COMMAND...
    "${@:2}" >/dev/null 2>"$scratch/said" || fail "$1: $(reason)"
}
# What a registry has under the version: the manifest, or nothing. Any other answer than these two ends the release.
published() { # REPOSITORY FILE
    skopeo --insecure-policy inspect --raw "docker://$1:$version" >"$2" 2>"$scratch/said" && return
    grep -qE 'manifest unknown|name unknown|NAME_UNKNOWN|MANIFEST_UNKNOWN| 404 ' "$scratch/said" || fail "$1: $(reason)"
    return 1
}
digest_of() { echo "sha256:$(sha256sum <"$1" | cut -d' ' -f1)"; }

# 1. The image. Another architecture's programs run here where binfmt_misc has qemu for them.
declare -A archives=()
for architecture in amd64 arm64; do
    interpreter=/proc/sys/fs/binfmt_misc/qemu-$(sed 's/amd64/x86_64/; s/arm64/aarch64/' <<<$architecture)
    if [ "$architecture" = "$(dpkg --print-architecture)" ] || [ -e "$interpreter" ]; then
        archives[$architecture]=$(hack/cluster/image.sh --architecture $architecture)
    else
        say "image: without $architecture, because this machine has no qemu for it (qemu-user-static, binfmt-support)"
    fi
done
inputs=$(printf '%s\n' "${archives[@]}" | sed 's|.*/||; s|\.tar$||' | sort | paste -sd' ')
there=''
if [ "$push" ] && published "$image" "$scratch/index"; then
    # Built again it would have other times in it: what was released counts.
    grep -qF "\"dev.darner.inputs\":\"$inputs\"" "$scratch/index" ||
        fail "$image:$version is there already, of other sources or for other architectures; a version is released once"
    there=yes digest=$(digest_of "$scratch/index")
    rm -rf "$output/image"
    attempt "$image" skopeo --insecure-policy copy --all "docker://$image@$digest" "oci:$output/image:$version"
else
    rm -rf "$output/image"
    for architecture in "${!archives[@]}"; do
        attempt image skopeo --insecure-policy copy "docker-archive:${archives[$architecture]}" "oci:$output/image:$architecture"
    done
    digest=$("$python" -m hack.release.layout tie "$output/image" "$version" "$inputs")
fi
"$python" -m hack.release.sbom "$output/image" "$version" "$output"
"$python" -m hack.release.layout list "$output/image" >"$scratch/images"

# 2. The chart. Helm checks and packs it; packed again without times and owners it is the same bytes every time.
mapfile -t architectures < <(cut -d' ' -f1 "$scratch/images")
"$python" -m hack.release.chart "$scratch/chart/darner" "$version" "$image" "$digest" "${architectures[@]}" || exit 1
attempt chart "$helm" package --destination "$scratch" "$scratch/chart/darner"
mkdir "$scratch/packed"
tar --extract --touch --gzip --file "$scratch/darner-$version.tgz" --directory "$scratch/packed"
package=$output/darner-$version.tgz
tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --directory "$scratch/packed" darner |
    gzip --no-name --best >"$package"

# 3. Both to the registry, once what signs them is known to work.
changed=''
if [ "$push" ]; then
    cosign=$(hack/release/cosign.sh)
    key=env://COSIGN_PRIVATE_KEY
    attempt COSIGN_PRIVATE_KEY "$cosign" public-key --key $key --outfile "$output/cosign.pub"
    if [ "$there" ]; then
        say "image: $image@$digest is there already"
    else
        attempt "$image" skopeo --insecure-policy copy --all --preserve-digests "oci:$output/image:$version" "docker://$image:$version"
        say "image: pushed $image@$digest"
        changed=yes
    fi
    if published "$chart" "$scratch/manifest"; then
        attempt "$chart" "$helm" pull "oci://$chart" --version "$version" --destination "$scratch"
        cmp --quiet "$package" "$scratch/darner-$version.tgz" ||
            fail "$chart:$version is there already and is another chart; a version is released once"
        say "chart: $chart:$version is there already"
    else
        attempt "$chart" "$helm" push "$package" "oci://$registry"
        published "$chart" "$scratch/manifest" || fail "$chart:$version was pushed and is not there"
        say "chart: pushed $chart:$version"
        changed=yes
    fi
    chart_digest=$(digest_of "$scratch/manifest")

    # 4. Signatures, and each bill of materials as a signed statement about its image.
    signing=(--key $key --yes) verifying=(--key "$output/cosign.pub")
    if [ $log = false ]; then
        signing+=(--use-signing-config=false --tlog-upload=false) verifying+=(--insecure-ignore-tlog=true)
    fi
    prove() { # WHAT REFERENCE VERB CHECK ARGUMENTS-OF-THE-CHECK [MORE ARGUMENTS OF THE VERB]
        if "$cosign" "$4" "${verifying[@]}" $5 "$2" >/dev/null 2>&1; then
            say "$1: there already"
        else
            attempt "$1" "$cosign" "$3" "${signing[@]}" $5 "${@:6}" "$2"
            say "$1: made"
            changed=yes
        fi
    }
    prove 'signature of the image' "$image@$digest" sign verify ''
    prove 'signature of the chart' "$chart@$chart_digest" sign verify ''
    while read -r architecture manifest; do
        bill=$output/darner-$version-$architecture.cdx.json
        prove "bill of materials for $architecture" "$image@$manifest" attest verify-attestation '--type cyclonedx' --predicate "$bill"
    done <"$scratch/images"
fi

(cd "$output" && find . -type f ! -name SHA256SUMS -printf '%P\0' | sort -z | xargs -0 sha256sum >SHA256SUMS)
if [ ! "$push" ]; then
    say "dry run: $image@$digest and $chart:$version would be pushed; all of it is in $output"
elif [ "$changed" ]; then
    say "released: helm install darner oci://$chart@$chart_digest"
else
    say "nothing had to be changed: helm install darner oci://$chart@$chart_digest"
fi
