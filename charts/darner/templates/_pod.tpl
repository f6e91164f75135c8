{{- /* What the pods of the three components have in common. Each takes (dict "root" $ "component" "agent"). */ -}}

{{- define "darner.podMetadata" -}}
labels:
  {{- include "darner.selector" . | nindent 2 }}
  app.kubernetes.io/part-of: darner
  # Darner's own images come from where they come from: nothing of it waits for itself, not even where every namespace is opted in.
  {{ .root.Values.webhook.label | quote }}: disabled
  {{- with omit (merge (dict) (index .root.Values .component).podLabels .root.Values.commonLabels) .root.Values.webhook.label }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with (index .root.Values .component).podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "darner.podSpec" -}}
{{- $values := index .root.Values .component -}}
serviceAccountName: {{ include "darner.serviceAccount" . | quote }}
# Services of this namespace would otherwise appear as variables that look like settings, such as DARNER_WEBHOOK_PORT.
enableServiceLinks: false
{{- include "darner.pullSecrets" .root | nindent 0 }}
{{- include "darner.environs" $values | nindent 0 }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with include "darner.podSecurityContext" . | fromYaml }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
# The image is one for Linux; what tolerates everything would be put on other nodes as well.
nodeSelector:
  {{- merge (dict) $values.nodeSelector (dict "kubernetes.io/os" "linux") | toYaml | nindent 2 }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- include "darner.tolerations" (dict "root" .root "list" $values.tolerations) }}
{{- end -}}

{{- /* On OpenShift each namespace has users and groups of its own, which `restricted-v2` gives to whoever asks for none. */ -}}
{{- define "darner.podSecurityContext" -}}
{{- $context := (index .root.Values .component).podSecurityContext -}}
{{- if and .root.Values.openshift.enabled (ne .component "agent") -}}
{{- $context = omit $context "runAsUser" "runAsGroup" "fsGroup" "fsGroupChangePolicy" -}}
{{- end -}}
{{- toYaml $context -}}
{{- end -}}

{{- define "darner.securityContext" -}}
{{- $context := (index .root.Values .component).securityContext -}}
{{- if and .root.Values.openshift.enabled (eq .component "agent") -}}
{{- $context = merge (deepCopy $context) (dict "seLinuxOptions" (dict "type" "spc_t")) -}}
{{- end -}}
{{- toYaml $context -}}
{{- end -}}

{{- /* Nobody takes away the taint of a new node but Darner, so Darner itself may not wait for that. */ -}}
{{- define "darner.tolerations" -}}
{{- $list := .list -}}
{{- if .root.Values.webhook.nodes.startupTaint }}
{{- $list = append $list (dict "key" "darner.dev/agent-not-ready" "operator" "Exists") }}
{{- end }}
{{- with $list }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* One pod of a component for each node, as far as the nodes suffice, unless the values say otherwise. */ -}}
{{- define "darner.spread" -}}
topologySpreadConstraints:
{{- with (index .root.Values .component).topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
{{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "darner.selector" . | nindent 8 }}
{{- end }}
{{- end -}}

{{- /* Secrets of the release's namespace, those of the values and those of the whole of which this chart is a part. Each is there once. */ -}}
{{- define "darner.pullSecrets" -}}
{{- $names := list -}}
{{- range concat .Values.imagePullSecrets .Values.global.imagePullSecrets -}}
{{- $names = append $names (kindIs "string" . | ternary . (get (kindIs "string" . | ternary dict .) "name")) -}}
{{- end -}}
{{- with uniq $names -}}
imagePullSecrets:
{{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end -}}
{{- end -}}

{{- /* What is around a pod, beside its node: its runtime, and how names are looked up in it. Takes the values of a component. */ -}}
{{- define "darner.environs" -}}
{{- with .runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with .dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /*
Another registry takes the place of the one that `image.repository` begins with. It begins with one where its first part has a dot or a
port, or is localhost: that is how the names of images are read everywhere.
*/ -}}
{{- define "darner.image" -}}
{{- $image := .Values.image -}}
{{- $registry := .Values.global.imageRegistry | default $image.registry | trimSuffix "/" -}}
{{- if $registry -}}
{{- $registry }}/{{ regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $image.repository "" -}}
{{- else -}}
{{- $image.repository -}}
{{- end -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end -}}

{{- /* A strategy of updates, in Kubernetes' own form. What belongs to RollingUpdate alone is left out where the type is another one. */ -}}
{{- define "darner.strategy" -}}
{{- $type := .type | default "RollingUpdate" -}}
{{- eq $type "RollingUpdate" | ternary . dict | merge (dict "type" $type) | toYaml -}}
{{- end -}}

{{- define "darner.container" -}}
{{- $values := index .root.Values .component -}}
name: {{ .component }}
image: {{ include "darner.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args:
  - {{ .component }}
  {{- with $values.extraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
# A process that cannot start says why in its last line; so does the pod's status then.
terminationMessagePolicy: FallbackToLogsOnError
{{- with include "darner.securityContext" . | fromYaml }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* What a kubelet lets a store's volume have before it evicts the pod. Nothing for a volume whose own filesystem is the limit. */ -}}
{{- define "darner.sizeLimit" -}}
{{- $values := index .root.Values .component -}}
{{- if not (dig "persistence" "enabled" false $values) -}}
{{- $values.store.sizeLimit | default "" -}}
{{- end -}}
{{- end -}}

{{- /*
With a `sizeLimit`, percentages of the quota are of that: the node's filesystem, of which a process would take them, is not the store's
alone, and a kubelet evicts the pod whose volume has outgrown its limit.
*/ -}}
{{- define "darner.storeQuota" -}}
{{- $quota := (index .root.Values .component).store.quota | toString -}}
{{- $limit := include "darner.sizeLimit" . -}}
{{- if and $limit (hasSuffix "%" $quota) -}}
{{- div (mul (include "darner.mebibytes" $limit | int) (trimSuffix "%" $quota | int)) 100 }}Mi
{{- else -}}
{{- $quota -}}
{{- end -}}
{{- end -}}

{{- /* A twentieth less than the limit: journals and directories count for kubelets too, and they look only now and then. 0 is no limit. */ -}}
{{- define "darner.storeLimit" -}}
{{- with include "darner.sizeLimit" . -}}
{{- div (mul (include "darner.mebibytes" . | int) 95) 100 }}Mi
{{- else -}}
0
{{- end -}}
{{- end -}}

{{- define "darner.mebibytes" -}}
{{- mul (regexFind "^[0-9]+" . | int) (get (dict "Mi" 1 "Gi" 1024 "Ti" 1048576) (regexFind "[MGT]i$" .)) -}}
{{- end -}}

{{- /* Settings of the agents and the supernodes alike: both are nodes, with a store and an origin client. */ -}}
{{- define "darner.nodeSettings" -}}
{{- $store := (index .root.Values .component).store -}}
{{- $authorities := .root.Values.registries.certificateAuthorities -}}
{{- $files := list -}}
{{- if $authorities.configMap -}}
{{- range $authorities.keys -}}
{{- $files = append $files (printf "/etc/darner/authorities/%s" .) -}}
{{- end -}}
{{- end -}}
# A directory of its own in the volume: the process makes it, so it is closed to everybody else. The volume's top is the kubelet's,
# who lets others look in and, by fsGroup, a group write; a store refuses that.
- name: DARNER_STORE
  value: /var/lib/darner/store
- name: DARNER_SWARM_KEY_FILE
  value: /etc/darner/swarm/key
- name: DARNER_ENCRYPTION
  value: {{ .root.Values.swarm.encryption }}
- name: DARNER_INSECURE_REGISTRIES
  value: {{ join "," .root.Values.registries.insecure | quote }}
- name: DARNER_FILES_ALLOW
  value: {{ join "," .root.Values.files.allow | quote }}
- name: DARNER_REFUSED_NETWORKS
  value: {{ join "," .root.Values.registries.destinations.refuse | quote }}
- name: DARNER_PRIVATE_REGISTRIES
  value: {{ .root.Values.registries.destinations.private }}
- name: DARNER_TRUSTED_REALMS
  value: {{ join "," .root.Values.registries.trustedRealms | quote }}
{{- $mirrors := list -}}
{{- range $mirror := .root.Values.registries.mirrors -}}
{{- range $mirror.endpoints -}}
{{- $mirrors = append $mirrors (printf "%s=%s" $mirror.registry (printf "%s/%s" . (default "" $mirror.prefix) | trimSuffix "/")) -}}
{{- end -}}
{{- end }}
- name: DARNER_MIRRORS
  value: {{ join "," $mirrors | quote }}
{{- $own := list -}}
{{- range $number, $tls := .root.Values.registries.tls -}}
{{- $own = append $own (printf "%s=/etc/darner/registry-tls/%d" $tls.registry $number) -}}
{{- end }}
- name: DARNER_REGISTRY_TLS
  value: {{ join "," $own | quote }}
- name: DARNER_CA_FILES
  value: {{ join "," $files | quote }}
{{- $proxy := .root.Values.registries.proxy -}}
{{- $variables := dict "HTTPS_PROXY" $proxy.https "HTTP_PROXY" $proxy.http "NO_PROXY" (join "," $proxy.exceptions) -}}
{{- /* What one component is given counts more, and no variable may be there twice. */ -}}
{{- range (index .root.Values .component).extraEnv -}}
{{- $_ := unset $variables .name -}}
{{- end -}}
{{- range $name, $value := $variables }}
{{- with $value }}
- name: {{ $name }}
  value: {{ . | quote }}
{{- end }}
{{- end }}
- name: DARNER_STORE_QUOTA
  value: {{ include "darner.storeQuota" . | quote }}
- name: DARNER_STORE_FREE
  value: {{ $store.free | quote }}
- name: DARNER_STORE_AGE
  value: {{ $store.age | quote }}
- name: DARNER_UPLOAD_RATE
  value: {{ (index .root.Values .component).bandwidth.upload | quote }}
- name: DARNER_ORIGIN_RATE
  value: {{ (index .root.Values .component).bandwidth.origin | quote }}
- name: DARNER_TAG_INTERVAL
  value: {{ .root.Values.tagCache.interval | quote }}
- name: DARNER_FRESH_TAGS
  value: {{ join "," .root.Values.tagCache.fresh | quote }}
- name: DARNER_STALE_IF_ERROR
  value: {{ .root.Values.tagCache.staleIfError | quote }}
- name: DARNER_LOG_LEVEL
  value: {{ .root.Values.logLevel }}
- name: DARNER_LOG_FORMAT
  value: {{ .root.Values.logFormat }}
{{- end -}}

{{- define "darner.nodeMounts" -}}
- name: store
  mountPath: /var/lib/darner
- name: swarm
  mountPath: /etc/darner/swarm
  readOnly: true
{{- if .root.Values.registries.certificateAuthorities.configMap }}
- name: authorities
  mountPath: /etc/darner/authorities
  readOnly: true
{{- end }}
{{- range $number, $_ := .root.Values.registries.tls }}
- name: registry-tls-{{ $number }}
  mountPath: /etc/darner/registry-tls/{{ $number }}
  readOnly: true
{{- end }}
{{- end -}}

{{- define "darner.nodeVolumes" -}}
# Not optional: until the webhook has made the key, the pod waits. A node without it would serve pieces to whoever asks.
- name: swarm
  secret:
    secretName: {{ include "darner.swarmSecret" .root | quote }}
    defaultMode: 0440
    items:
      - key: key
        path: key
      {{- if and (eq .component "supernode") (include "darner.nodeTokens" .root) }}
      - key: node-keys
        path: node-keys
      {{- end }}
{{- with .root.Values.registries.certificateAuthorities.configMap }}
- name: authorities
  configMap:
    name: {{ . | quote }}
{{- end }}
# Not optional either: without the certificate that its registry wants, a node would go from one failed pull to the next.
{{- range $number, $tls := .root.Values.registries.tls }}
- name: registry-tls-{{ $number }}
  secret:
    secretName: {{ $tls.secretName | quote }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{- /* Health of a process with HTTP on a port called `http`: alive, and ready. Takes the values of a component. */ -}}
{{- define "darner.probes" -}}
{{- $values := . -}}
{{- range $name, $path := dict "startupProbe" "/healthz" "livenessProbe" "/healthz" "readinessProbe" "/readyz" }}
{{ $name }}:
  httpGet:
    path: {{ $path }}
    port: http
  {{- index $values $name | toYaml | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Annotations of what is there while the release is being deleted; takes the order in which it is made. */ -}}
{{- define "darner.beforeDeletion" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}
