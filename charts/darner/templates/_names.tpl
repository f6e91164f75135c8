{{- /*
Names and labels.

Every name begins with the full name, which is unique in its namespace, so two releases never want the same object. It has at
most 42 characters: the longest object that puts its name into a label is the StatefulSet, whose pods carry
`controller-revision-hash: <full name>-supernode-<10 characters>`, and a label has at most 63.
*/ -}}

{{- define "darner.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /*
A release may be called `1.5`, and a Service may not. What has to be changed or cut gets a piece of its hash at the end: two
releases that differ only in what was changed keep different names, and the same release always has the same one.
*/ -}}
{{- define "darner.fullname" -}}
{{- $wanted := .Values.fullnameOverride -}}
{{- if not $wanted -}}
{{- $name := include "darner.name" . -}}
{{- $wanted = contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- end -}}
{{- $valid := $wanted | replace "." "-" -}}
{{- if not (regexMatch "^[a-z]" $valid) -}}
{{- $valid = printf "darner-%s" $valid -}}
{{- end -}}
{{- if or (ne $valid $wanted) (gt (len $valid) 42) -}}
{{- printf "%s-%s" ($valid | trunc 33 | trimSuffix "-") (sha256sum $wanted | trunc 8) -}}
{{- else -}}
{{- $valid -}}
{{- end -}}
{{- end -}}

{{- define "darner.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end -}}

{{- /* Objects without a namespace: releases of one name may live in several namespaces. No name has a dot but this one. */ -}}
{{- define "darner.clusterName" -}}
{{- printf "%s-webhook.%s" (include "darner.fullname" .) (include "darner.namespace" .) -}}
{{- end -}}

{{- /* API servers ask mutating webhooks in the order of their configurations' names. */ -}}
{{- define "darner.configurationName" -}}
{{- .Values.webhook.configurationName | default (include "darner.clusterName" .) -}}
{{- end -}}

{{- /* What rewritten pods and derived pull secrets are labelled with, so that each release knows its own. */ -}}
{{- define "darner.releaseLabel" -}}
{{- $name := printf "%s.%s" (include "darner.fullname" .) (include "darner.namespace" .) -}}
{{- gt (len $name) 63 | ternary (printf "%s-%s" (trunc 54 $name | trimSuffix "-" | trimSuffix ".") (sha256sum $name | trunc 8)) $name -}}
{{- end -}}

{{- /* The labels by which a component's pods are found. They can never change: selectors are immutable. */ -}}
{{- define "darner.selector" -}}
app.kubernetes.io/name: {{ include "darner.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "darner.labels" -}}
{{ include "darner.selector" . }}
app.kubernetes.io/part-of: darner
app.kubernetes.io/version: {{ .root.Chart.AppVersion | replace "+" "_" | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* `annotations:` of an object: those of all, and its own, which count more. Nothing where it has none. */ -}}
{{- define "darner.annotations" -}}
{{- with merge (dict) (.own | default dict) .root.Values.commonAnnotations -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "darner.serviceAccount" -}}
{{- $account := (index .root.Values .component).serviceAccount -}}
{{- if $account.create -}}
{{- $account.name | default (printf "%s-%s" (include "darner.fullname" .root) .component) -}}
{{- else -}}
{{- $account.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- /* The Secret that holds the swarm's key. */ -}}
{{- define "darner.swarmSecret" -}}
{{- if not (or .Values.swarm.existingSecret .Values.webhook.enabled) -}}
{{- fail "swarm.existingSecret: write the name of a Secret with the swarm's key; where webhook.enabled is false, nobody makes one" -}}
{{- end -}}
{{- .Values.swarm.existingSecret | default (printf "%s-swarm" (include "darner.fullname" .)) -}}
{{- end -}}

{{- define "darner.nodeTokens" -}}
{{- if and .Values.swarm.nodeTokens (not .Values.swarm.existingSecret) }}true{{ end -}}
{{- end -}}

{{- /* Whether the webhook makes its own certificate, and nobody else does. */ -}}
{{- define "darner.ownCertificate" -}}
{{- with .Values.webhook.certificate -}}
{{- if not (or .existingSecret .certManager.enabled) }}true{{ end -}}
{{- end -}}
{{- end -}}

{{- define "darner.certificateSecret" -}}
{{- if and .Values.webhook.certificate.caBundle (not .Values.webhook.certificate.existingSecret) -}}
{{- fail "webhook.certificate.caBundle: leave it empty, or write webhook.certificate.existingSecret too; the webhook's own certificate has its own authority" -}}
{{- end -}}
{{- .Values.webhook.certificate.existingSecret | default (printf "%s-webhook-certificate" (include "darner.fullname" .)) -}}
{{- end -}}

{{- /* The Service whose SRV records name the supernodes' pods. */ -}}
{{- define "darner.supernodeService" -}}
{{- if .Values.supernode.enabled -}}
{{- printf "_channel._tcp.%s-supernode.%s.svc.%s" (include "darner.fullname" .) (include "darner.namespace" .) .Values.clusterDomain -}}
{{- end -}}
{{- end -}}

{{- /* Whether the webhook tells supernodes the images of new pods. */ -}}
{{- define "darner.warms" -}}
{{- if and .Values.warm.onAdmission .Values.supernode.enabled .Values.webhook.enabled }}true{{ end -}}
{{- end -}}

{{- /* Whether supernodes ask the API server for the zones of nodes: before 1.35 no pod is told the zone of its node. */ -}}
{{- define "darner.nodeZones" -}}
{{- $wanted := .Values.supernode.nodeZones -}}
{{- $needed := semverCompare "<1.35-0" .Capabilities.KubeVersion.Version -}}
{{- if and .Values.supernode.enabled (or (eq $wanted "always") (and (eq $wanted "auto") $needed)) }}true{{ end -}}
{{- end -}}

{{- /* The channels of the supernodes by their StatefulSet names, which stay when pods and addresses change. */ -}}
{{- define "darner.supernodes" -}}
{{- if .Values.supernode.enabled -}}
{{- $name := printf "%s-supernode" (include "darner.fullname" .) -}}
{{- $list := list -}}
{{- range until (int .Values.supernode.replicas) -}}
{{- $list = append $list (printf "%s-%d.%s.%s.svc.%s:65004" $name . $name (include "darner.namespace" $) $.Values.clusterDomain) -}}
{{- end -}}
{{- join "," $list -}}
{{- end -}}
{{- end -}}

{{- /* Where a process in the pod network listens: `0.0.0.0:PORT`, or `[::]:PORT`. */ -}}
{{- define "darner.listen" -}}
{{- contains ":" .root.Values.listenAddress | ternary (printf "[%s]" .root.Values.listenAddress) .root.Values.listenAddress -}}
:{{ .port }}
{{- end -}}

{{- /* Where k3s and RKE2 keep their own containerd, and nothing elsewhere. The API server's version is v1.36.3+k3s1, or +rke2r1. */ -}}
{{- define "darner.rancher" -}}
{{- with regexFind "[+](k3s|rke2)" .Capabilities.KubeVersion.Version -}}
{{- printf "/var/lib/rancher/%s/agent" (trimPrefix "+" .) -}}
{{- end -}}
{{- end -}}

{{- /* The directory of what containerd holds; empty if that is no source. */ -}}
{{- define "darner.contentPath" -}}
{{- $path := .Values.agent.containerd.contentPath -}}
{{- $home := include "darner.rancher" . | default "/var/lib" -}}
{{- eq $path "auto" | ternary (printf "%s/containerd/io.containerd.content.v1.content" $home) $path -}}
{{- end -}}

{{- /* The directory in which the runtime is told of the registries that the agent is the mirror of; empty if there is none. */ -}}
{{- define "darner.hostsPath" -}}
{{- if .Values.mirror.enabled -}}
{{- $path := .Values.agent.containerd.hostsPath -}}
{{- if not (or $path .Values.agent.crio.configPath) -}}
{{- fail "mirror.enabled: write agent.containerd.hostsPath or agent.crio.configPath, or leave mirror mode off; no runtime would know of it" -}}
{{- end -}}
{{- eq $path "auto" | ternary (printf "%s/etc/containerd/certs.d" (include "darner.rancher" .)) $path -}}
{{- end -}}
{{- end -}}

{{- /* Whether the webhook looks at the container runtimes of nodes: where they may be such that no agent tells of itself. */ -}}
{{- define "darner.nodeRuntimes" -}}
{{- $wanted := .Values.webhook.nodes.runtimes -}}
{{- if or (eq $wanted "always") (and (eq $wanted "auto") .Values.openshift.enabled (not .Values.agent.crio.configPath)) }}true{{ end -}}
{{- end -}}
