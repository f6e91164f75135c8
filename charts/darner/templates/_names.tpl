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

{{- /* Objects without a namespace: releases of one name may live in several namespaces. No name has a dot but this one. */ -}}
{{- define "darner.clusterName" -}}
{{- printf "%s-webhook.%s" (include "darner.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- /* API servers ask mutating webhooks in the order of their configurations' names. */ -}}
{{- define "darner.configurationName" -}}
{{- .Values.webhook.configurationName | default (include "darner.clusterName" .) -}}
{{- end -}}

{{- /* What rewritten pods and derived pull secrets are labelled with, so that each release knows its own. */ -}}
{{- define "darner.releaseLabel" -}}
{{- $name := printf "%s.%s" (include "darner.fullname" .) .Release.Namespace -}}
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

{{- define "darner.certificateSecret" -}}
{{- if and .Values.webhook.certificate.caBundle (not .Values.webhook.certificate.existingSecret) -}}
{{- fail "webhook.certificate.caBundle: leave it empty, or write webhook.certificate.existingSecret too; the webhook's own certificate has its own authority" -}}
{{- end -}}
{{- .Values.webhook.certificate.existingSecret | default (printf "%s-webhook-certificate" (include "darner.fullname" .)) -}}
{{- end -}}

{{- /* The channels of the supernodes by their StatefulSet names, which stay when pods and addresses change. */ -}}
{{- define "darner.supernodes" -}}
{{- if .Values.supernode.enabled -}}
{{- $name := printf "%s-supernode" (include "darner.fullname" .) -}}
{{- $list := list -}}
{{- range until (int .Values.supernode.replicas) -}}
{{- $list = append $list (printf "%s-%d.%s.%s.svc.%s:65004" $name . $name $.Release.Namespace $.Values.clusterDomain) -}}
{{- end -}}
{{- join "," $list -}}
{{- end -}}
{{- end -}}

{{- /* Where a process in the pod network listens: `0.0.0.0:PORT`, or `[::]:PORT`. */ -}}
{{- define "darner.listen" -}}
{{- contains ":" .root.Values.listenAddress | ternary (printf "[%s]" .root.Values.listenAddress) .root.Values.listenAddress -}}
:{{ .port }}
{{- end -}}
