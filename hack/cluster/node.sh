#!/usr/bin/env bash
# The first process of a node, in mount, process, UTS and IPC namespaces of its own and in the network namespace of its host. It makes
# them look like a machine, then starts containerd, kubelet and kube-proxy and stays. From node.py it has: NODE, ADDRESS, DISK (the
# directory of its disk), KUBERNETES and CONTAINERD (folders of programs), CERTIFICATES (the API server's), IMAGES (archives to load),
# CREDENTIAL_PROVIDER_CONFIG and CREDENTIAL_PROVIDERS (a file and a folder of the node).
set -euo pipefail

hostname "$NODE"
mount --make-rprivate /
mkdir -p "$DISK"/{var/{tmp,lib/{kubelet,containerd,cni},log/{pods,containers}},run/{netns,lock},mnt,srv}
mkdir -p "$DISK"/opt/{cni/bin,control-plane,images,programs/{kubernetes,containerd}} "$DISK"/{etc.upper,etc.work,groups}
ln -sfn /run "$DISK/var/run"
ln -sfn /run/lock "$DISK/var/lock"
# What the node needs of the machine, under names that it will have when the machine's directories are out of sight.
mount --bind "$KUBERNETES" "$DISK/opt/programs/kubernetes"
mount --bind "$CONTAINERD" "$DISK/opt/programs/containerd"
mount --bind "$CERTIFICATES" "$DISK/opt/control-plane"
mount --bind "$IMAGES" "$DISK/opt/images"
mount --bind /usr/lib/cni "$DISK/opt/cni/bin"

# /sys shows the devices of the network namespace that it was mounted in; the machine's control groups are put back below the new one.
mount --rbind /sys/fs/cgroup "$DISK/groups"
umount -l /sys
mount -t sysfs sysfs /sys
mount --rbind "$DISK/groups" /sys/fs/cgroup
umount -l "$DISK/groups"

mount -t overlay overlay -o "lowerdir=/etc,upperdir=$DISK/etc.upper,workdir=$DISK/etc.work" /etc
cp -rT "$DISK/etc" /etc
# The kubelet writes these, which are the whole machine's: it gets copies, with the values that it wants to see.
sysctl_copy() { # FILE [VALUE]
    local copy=$DISK/run/sysctl-${1//\//-}
    echo "${2:-$(cat "/proc/sys/$1")}" >"$copy"
    mount --bind "$copy" "/proc/sys/$1"
}
sysctl_copy vm/overcommit_memory 1
sysctl_copy vm/panic_on_oom 0
sysctl_copy kernel/panic 10
sysctl_copy kernel/panic_on_oops 1
sysctl_copy kernel/keys/root_maxkeys
sysctl_copy kernel/keys/root_maxbytes
for directory in opt run mnt srv var; do mount --rbind "$DISK/$directory" /$directory; done
mount --make-rshared /
sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
cd /

containerd --config /etc/containerd/config.toml >>/var/log/containerd.log 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
mkdir -p /var/lib/images # what is there already, after a loss of power
for archive in /opt/images/*.tar; do
    [ -e "/var/lib/images/${archive##*/}" ] && continue
    ctr --namespace k8s.io images import "$archive" >>/var/log/images.log 2>&1
    touch "/var/lib/images/${archive##*/}"
done
until [ -e /run/control-plane-is-ready ]; do sleep 0.1; done
kubelet --config=/etc/kubernetes/kubelet.yaml --kubeconfig=/etc/kubernetes/kubelet.kubeconfig \
    --image-credential-provider-config="$CREDENTIAL_PROVIDER_CONFIG" --image-credential-provider-bin-dir="$CREDENTIAL_PROVIDERS" \
    --hostname-override="$NODE" --node-ip="$ADDRESS" --v=2 >>/var/log/kubelet.log 2>&1 &
kube-proxy --config=/etc/kubernetes/kube-proxy.yaml >>/var/log/kube-proxy.log 2>&1 &
# As every first process, it buries whoever is left without a parent.
while true; do wait -n || sleep 1; done
