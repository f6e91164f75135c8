"""The control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler on one host, and who may do what.

Identities are tokens in a file, because certificates would show nothing here. What is written lives in the cluster's directory.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from pathlib import Path

from hack.cluster.layout import CONTROL_PLANE, NODES_MAX, SERVICE_NETWORK, Layout
from hack.cluster.programs import Programs, start

API_PORT = 6443
WEBHOOK_CLIENT, WEBHOOK_CLIENT_NAME = "darner-webhook.darner-system.svc", "kube-apiserver"
"""The webhook that the API server shows a certificate to, whether it asks for one or not, and the name in that."""
FEATURES_OF_35 = ("ImageVolume", "KubeletEnsureSecretPulledImages")
"""On by default since Kubernetes 1.35: images as volumes, and kubelets that ask again whether a pod may have a private image."""


def features(kubernetes: str) -> dict[str, bool]:
    """Feature gates that are set in a version."""
    minor = int(kubernetes.split(".")[1])
    return dict.fromkeys(FEATURES_OF_35, True) if minor < 35 else {}


class ControlPlane:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._directory = layout.disk(CONTROL_PLANE)
        self._tokens = self._directory / "tokens.csv"
        self._key = self._directory / "service-accounts.key"
        self.authority = self._directory / "certificates/apiserver.crt"
        """The API server signs its certificate itself and writes it here."""
        self._webhooks = self._directory / "webhooks"
        self.webhook_authority = self._webhooks / "ca.crt"
        """Of the certificate that the API server shows to webhooks."""

    def prepare(self) -> None:
        """Identities, for all nodes that there will ever be: the API server reads them once."""
        self.authority.parent.mkdir(parents=True)  # there before the nodes, which look into it
        tokens = {
            "admin": "system:masters",
            "system:kube-controller-manager": "",
            "system:kube-scheduler": "",
            "system:kube-proxy": "",
            **{f"system:node:n{number}": "system:nodes" for number in range(NODES_MAX)},
        }
        lines = [f'{secrets.token_hex(16)},{user},{user},"{group}"' for user, group in tokens.items()]
        self._tokens.touch(mode=0o600)
        self._tokens.write_text("\n".join(lines) + "\n")
        generate = ["openssl", "genpkey", "-quiet", "-algorithm", "RSA", "-out", str(self._key)]
        subprocess.run(generate, check=True)
        self._webhooks.mkdir(mode=0o700)
        self._certify(self.webhook_authority, "webhooks' clients", "-addext", "keyUsage=critical,keyCertSign")
        signed = ("-CA", self.webhook_authority, "-CAkey", self.webhook_authority.with_suffix(".key"))
        client = self._webhooks / "client.crt"
        self._certify(client, WEBHOOK_CLIENT_NAME, *signed, "-addext", "extendedKeyUsage=clientAuth")
        shown = {"client-certificate": str(client), "client-key": str(client.with_suffix(".key"))}
        users = [{"name": WEBHOOK_CLIENT, "user": shown}]
        (self._webhooks / "kubeconfig").write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "users": users}))
        group = "apiserver.config.k8s.io/v1"
        how = {"apiVersion": group, "kind": "WebhookAdmissionConfiguration", "kubeConfigFile": str(self._webhooks / "kubeconfig")}
        plugins = [{"name": "MutatingAdmissionWebhook", "configuration": how}]
        admission = {"apiVersion": group, "kind": "AdmissionConfiguration", "plugins": plugins}
        (self._webhooks / "admission").write_text(json.dumps(admission))

    def _certify(self, path: Path, name: str, *arguments: str | Path) -> None:
        """A certificate, and its key beside it."""
        made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "30", "-subj", f"/CN={name}"]
        files: list[str | Path] = ["-keyout", path.with_suffix(".key"), "-out", path]
        subprocess.run(["openssl", "req", "-x509", *made, *files, *arguments], check=True, stderr=subprocess.DEVNULL)

    def kubeconfig(self, path: Path, user: str, authority: Path | None = None) -> Path:
        """How a user reaches the API server, whose certificate the reader may find elsewhere. JSON, which is YAML."""
        token = next(line.split(",")[0] for line in self._tokens.read_text().splitlines() if line.split(",")[1] == user)
        server = f"https://{self._layout.control_plane.address}:{API_PORT}"
        path.touch(mode=0o600)
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {
                            "name": "darner",
                            "cluster": {"server": server, "certificate-authority": str(authority or self.authority)},
                        }
                    ],
                    "users": [{"name": user, "user": {"token": token}}],
                    "contexts": [{"name": "darner", "context": {"cluster": "darner", "user": user}}],
                    "current-context": "darner",
                }
            )
        )
        return path

    def start_api_server(self, programs: Programs, kubernetes: str) -> None:
        etcd = "http://127.0.0.1:2379"
        self._start(
            programs.etcd / "etcd",
            *("--data-dir", self._directory / "etcd"),
            *(f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}", "--listen-peer-urls=http://127.0.0.1:2380"),
            "--unsafe-no-fsync",  # it is deleted with the cluster
        )
        self._start(
            programs.kubernetes / "kube-apiserver",
            f"--etcd-servers={etcd}",
            f"--advertise-address={self._layout.control_plane.address}",
            f"--secure-port={API_PORT}",
            f"--cert-dir={self.authority.parent}",
            f"--token-auth-file={self._tokens}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--admission-control-config-file={self._webhooks / 'admission'}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={self._key}",
            f"--service-account-signing-key-file={self._key}",
            # There is no kube-proxy here, so a webhook's Service is reached by its pods' addresses.
            "--enable-aggregator-routing=true",
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
            *(f"--feature-gates={name}={str(on).lower()}" for name, on in features(kubernetes).items()),
        )

    def start_controllers(self, programs: Programs) -> None:
        """As soon as the API server's certificate is there."""
        self._start(
            programs.kubernetes / "kube-controller-manager",
            *("--kubeconfig", self.kubeconfig(self._directory / "controllers", "system:kube-controller-manager")),
            f"--service-account-private-key-file={self._key}",
            f"--root-ca-file={self.authority}",
            f"--cert-dir={self.authority.parent}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
        )
        self._start(
            programs.kubernetes / "kube-scheduler",
            *("--kubeconfig", self.kubeconfig(self._directory / "scheduler", "system:kube-scheduler")),
            "--leader-elect=false",
        )

    def _start(self, program: Path, *arguments: object) -> None:
        start(self._layout, CONTROL_PLANE, program.name, [program, *arguments])
