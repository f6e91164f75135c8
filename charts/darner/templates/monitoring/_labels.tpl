{{- /* Of the objects that an operator or a sidecar looks for, by labels of its own. */ -}}
{{- define "darner.monitoringLabels" -}}
{{ include "darner.labels" (dict "root" . "component" "monitoring") }}
{{- with .Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}
