{{- define "darner.webhookSettings" -}}
{{- $certificate := .Values.webhook.certificate -}}
- name: DARNER_LISTEN
  value: {{ include "darner.listen" (dict "root" . "port" .Values.webhook.port) | quote }}
- name: DARNER_HTTP_LISTEN
  value: {{ include "darner.listen" (dict "root" . "port" .Values.webhook.httpPort) | quote }}
{{- if not (include "darner.ownCertificate" .) }}
- name: DARNER_CERTIFICATE_DIR
  value: /etc/darner/certificate
{{- else }}
- name: DARNER_CERTIFICATE_SECRET
  value: {{ include "darner.namespace" . }}/{{ include "darner.certificateSecret" . }}
- name: DARNER_WEBHOOK_CONFIGURATION
  value: {{ include "darner.configurationName" . }}
{{- end }}
# The name by which API servers call a Service, whatever the cluster's domain is.
- name: DARNER_CERTIFICATE_NAMES
  value: {{ include "darner.fullname" . }}-webhook.{{ include "darner.namespace" . }}.svc
{{- $clients := .Values.webhook.clients }}
{{- if and $clients.configMap (not $clients.names) }}
{{- fail "webhook.clients: write names too, besides configMap; an authority may sign for others than API servers" }}
{{- end }}
- name: DARNER_CLIENT_CA_FILE
  value: {{ with $clients.configMap }}/etc/darner/clients/{{ $clients.key }}{{ else }}""{{ end }}
- name: DARNER_CLIENT_NAMES
  value: {{ if $clients.configMap }}{{ join "," $clients.names | quote }}{{ else }}""{{ end }}
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
  value: {{ include "darner.namespace" . }}/{{ include "darner.swarmSecret" . }}
{{- end }}
- name: DARNER_NAMESPACE
  value: {{ include "darner.namespace" . | quote }}
- name: DARNER_RELEASE
  value: {{ include "darner.releaseLabel" . | quote }}
- name: DARNER_EXCLUDED_NAMESPACES
  value: {{ include "darner.excludedNamespaces" . | fromJsonArray | join "," | quote }}
- name: DARNER_ONLY_NAMESPACES
  value: {{ join "," .Values.rbac.namespaces | quote }}
- name: DARNER_INCLUDE_IMAGES
  value: {{ join "," .Values.webhook.images.include | quote }}
- name: DARNER_EXCLUDE_IMAGES
  value: {{ join "," .Values.webhook.images.exclude | quote }}
- name: DARNER_PULL_SECRETS
  value: {{ .Values.webhook.pullSecrets.enabled | quote }}
- name: DARNER_PULL_SECRET_DEADLINE
  value: {{ .Values.webhook.pullSecrets.deadline | quote }}
- name: DARNER_LEASE
  value: {{ include "darner.namespace" . }}/{{ include "darner.fullname" . }}-webhook
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
- name: DARNER_NODE_RUNTIMES
  value: {{ ternary "true" "false" (ne (include "darner.nodeRuntimes" .) "") | quote }}
- name: DARNER_AGENT_SERVICE
  value: {{ include "darner.namespace" . }}/{{ include "darner.fullname" . }}-agent
- name: DARNER_AGENT_READY_PERCENT
  value: {{ .Values.webhook.agents.readyPercent | quote }}
- name: DARNER_AGENT_VIEW_AGE
  value: {{ .Values.webhook.agents.viewAge | quote }}
{{- $warms := ne (include "darner.warms" .) "" }}
- name: DARNER_WARM_ON_ADMISSION
  value: {{ $warms | quote }}
- name: DARNER_WARM_ARCHITECTURES
  value: {{ join "," .Values.warm.architectures | quote }}
- name: DARNER_SWARM_KEY_FILE
  value: {{ ternary "/etc/darner/swarm/key" "" $warms | quote }}
- name: DARNER_SUPERNODE_SERVICE
  value: {{ ternary (include "darner.supernodeService" .) "" $warms | quote }}
- name: DARNER_SUPERNODES_FILE
  value: {{ ternary "/etc/darner/supernodes/supernodes" "" $warms | quote }}
- name: DARNER_LOG_LEVEL
  value: {{ .Values.logLevel }}
- name: DARNER_LOG_FORMAT
  value: {{ .Values.logFormat }}
{{- end -}}

{{- /* A port of the node belongs to one process. What would never start is refused here, where somebody still looks. */ -}}
{{- define "darner.checkHostPorts" -}}
{{- $ports := dict "webhook.port" .Values.webhook.port "webhook.httpPort" .Values.webhook.httpPort -}}
{{- $taken := dict "10250" "the kubelet's" "65001" "the agent's" -}}
{{- range $port := .Values.agent.ports -}}
{{- $_ := set $taken (toString $port) "the agent's" -}}
{{- end -}}
{{- range $name, $port := $ports -}}
{{- with get $taken (toString $port) -}}
{{- fail (printf "%s: with webhook.hostNetwork choose another port, such as 10260, that the control plane reaches; %v of a node is %s" $name $port .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Namespaces in which nothing is rewritten, whatever their labels: what agents and supernodes need in order to run is here. */ -}}
{{- define "darner.excludedNamespaces" -}}
{{- concat (list (include "darner.namespace" .) "kube-system") .Values.webhook.namespaces.exclude | uniq | toJson -}}
{{- end -}}
