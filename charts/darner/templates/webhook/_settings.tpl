{{- define "darner.webhookSettings" -}}
{{- $certificate := .Values.webhook.certificate -}}
- name: DARNER_LISTEN
  value: {{ include "darner.listen" (dict "root" . "port" 8443) | quote }}
- name: DARNER_HTTP_LISTEN
  value: {{ include "darner.listen" (dict "root" . "port" 8080) | quote }}
{{- if $certificate.existingSecret }}
- name: DARNER_CERTIFICATE_DIR
  value: /etc/darner/certificate
{{- else }}
- name: DARNER_CERTIFICATE_SECRET
  value: {{ .Release.Namespace }}/{{ include "darner.certificateSecret" . }}
- name: DARNER_WEBHOOK_CONFIGURATION
  value: {{ include "darner.configurationName" . }}
{{- end }}
# The name by which API servers call a Service, whatever the cluster's domain is.
- name: DARNER_CERTIFICATE_NAMES
  value: {{ include "darner.fullname" . }}-webhook.{{ .Release.Namespace }}.svc
- name: DARNER_CERTIFICATE_LIFE
  value: {{ $certificate.life | quote }}
- name: DARNER_AUTHORITY_LIFE
  value: {{ $certificate.authorityLife | quote }}
- name: DARNER_AUTHORITY_OVERLAP
  value: {{ $certificate.authorityOverlap | quote }}
- name: DARNER_CERTIFICATE_INTERVAL
  value: {{ $certificate.interval | quote }}
{{- if not .Values.swarm.existingSecret }}
- name: DARNER_SWARM_SECRET
  value: {{ .Release.Namespace }}/{{ include "darner.swarmSecret" . }}
{{- end }}
- name: DARNER_NAMESPACE
  value: {{ .Release.Namespace | quote }}
- name: DARNER_RELEASE
  value: {{ include "darner.releaseLabel" . | quote }}
- name: DARNER_EXCLUDED_NAMESPACES
  value: {{ include "darner.excludedNamespaces" . | fromJsonArray | join "," | quote }}
- name: DARNER_INCLUDE_IMAGES
  value: {{ join "," .Values.webhook.images.include | quote }}
- name: DARNER_EXCLUDE_IMAGES
  value: {{ join "," .Values.webhook.images.exclude | quote }}
- name: DARNER_PULL_SECRETS
  value: {{ .Values.webhook.pullSecrets.enabled | quote }}
- name: DARNER_PULL_SECRET_DEADLINE
  value: {{ .Values.webhook.pullSecrets.deadline | quote }}
- name: DARNER_LEASE
  value: {{ .Release.Namespace }}/{{ include "darner.fullname" . }}-webhook
- name: DARNER_REVERT
  value: {{ .Values.webhook.revert | quote }}
- name: DARNER_IMMUTABLE_IMAGES
  value: {{ .Values.webhook.immutableImages }}
- name: DARNER_EXCLUDED_OWNERS
  value: {{ join "," .Values.webhook.owners.exclude | quote }}
- name: DARNER_ALLOW_REGISTRIES
  value: {{ join "," .Values.registries.allow | quote }}
- name: DARNER_EXCLUDE_NODES
  value: {{ .Values.webhook.nodes.exclude | quote }}
- name: DARNER_STARTUP_TAINT
  value: {{ .Values.webhook.nodes.startupTaint | quote }}
- name: DARNER_AGENT_SERVICE
  value: {{ .Release.Namespace }}/{{ include "darner.fullname" . }}-agent
- name: DARNER_AGENT_READY_PERCENT
  value: {{ .Values.webhook.agents.readyPercent | quote }}
- name: DARNER_AGENT_VIEW_AGE
  value: {{ .Values.webhook.agents.viewAge | quote }}
- name: DARNER_LOG_LEVEL
  value: {{ .Values.logLevel }}
{{- end -}}

{{- /* Namespaces in which nothing is rewritten, whatever their labels: what agents and supernodes need in order to run is here. */ -}}
{{- define "darner.excludedNamespaces" -}}
{{- concat (list .Release.Namespace "kube-system") .Values.webhook.namespaces.exclude | uniq | toJson -}}
{{- end -}}
