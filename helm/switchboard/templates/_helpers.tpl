{{/* The release's name, with the chart's if that is not in it. */}}
{{- define "switchboard.fullname" -}}
{{- if contains "switchboard" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-switchboard" (.Release.Name | trunc 38 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* Kubernetes lets nobody change a Deployment's selector: no value reaches these two. */}}
{{- define "switchboard.selectorLabels" -}}
app.kubernetes.io/name: switchboard
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "switchboard.labels" -}}
{{ include "switchboard.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end -}}

{{- define "switchboard.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "switchboard.secretName" -}}
{{- if .Values.externalSecret.store -}}
{{ include "switchboard.fullname" . }}
{{- else -}}
{{ .Values.secret.existingSecret }}
{{- end -}}
{{- end -}}

{{- define "switchboard.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (include "switchboard.fullname" .) }}
{{- end -}}

{{- define "switchboard.publicHost" -}}
{{ (urlParse .Values.settings.public_url).hostname }}
{{- end -}}

{{/* "yes" if several processes share their state. */}}
{{- define "switchboard.hasRedis" -}}
{{- if or .Values.redis.url .Values.secret.keys.redis_url -}}yes{{- end -}}
{{- end -}}

{{/* The fewest pods there are, but for accidents: among how many the limits are divided while Redis is away. */}}
{{- define "switchboard.replicas" -}}
{{- if .Values.autoscaling.enabled -}}
{{ .Values.autoscaling.minReplicas }}
{{- else -}}
{{ .Values.replicas }}
{{- end -}}
{{- end -}}

{{/* A setting's value as the program reads it: no 1e+06, no brackets. */}}
{{- define "switchboard.text" -}}
{{- if kindIs "slice" . -}}
{{ join "," . }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{ int64 . }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end -}}

{{/*
The policy's files in as many ConfigMaps as they need: JSON, a list of lists of names, under the key `parts`.
A ConfigMap holds 1 MiB with its names and metadata; 900 kB of text leave room for them.
*/}}
{{- define "switchboard.policyParts" -}}
{{- $parts := list -}}
{{- $names := list -}}
{{- $size := 0 -}}
{{- range $name := keys .Values.policy.files | sortAlpha -}}
  {{- $own := index $.Values.policy.files $name | len -}}
  {{- if and $names (gt (add $size $own | int) 900000) -}}
    {{- $parts = append $parts $names -}}
    {{- $names = list -}}
    {{- $size = 0 -}}
  {{- end -}}
  {{- $names = append $names $name -}}
  {{- $size = add $size $own -}}
{{- end -}}
{{- if $names -}}{{- $parts = append $parts $names -}}{{- end -}}
{{- dict "parts" $parts | toJson -}}
{{- end -}}
