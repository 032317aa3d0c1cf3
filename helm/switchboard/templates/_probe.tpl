{{/* Never the service's own labels: Services would lead to the probe, and the budget of disruptions would count it. */}}
{{- define "switchboard.probeLabels" -}}
app.kubernetes.io/name: switchboard-probe
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "switchboard.probeMetadataLabels" -}}
{{- merge (include "switchboard.probeLabels" . | fromYaml) (include "switchboard.labels" . | fromYaml) | toYaml -}}
{{- end -}}

{{/* A CronJob's name has 52 characters at most: Kubernetes puts eleven behind it. */}}
{{- define "switchboard.cronJobName" -}}
{{ include "switchboard.fullname" . | trunc 46 | trimSuffix "-" }}-probe
{{- end -}}

{{/* The seconds that the command takes at most: its steps, a hang-up, and another one for what was left open. */}}
{{- define "switchboard.probeSeconds" -}}
{{- $options := .Values.prober.options -}}
{{ add (ceil ($options.deadline | default 60)) (mul 2 (ceil ($options.timeout | default 20))) }}
{{- end -}}

{{- define "switchboard.probePod" -}}
{{- $secrets := "/run/secrets/probe" -}}
{{- $prober := .Values.prober -}}
restartPolicy: Never
serviceAccountName: {{ include "switchboard.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
# A probe that is stopped hangs up what it has opened.
terminationGracePeriodSeconds: {{ add (ceil ($prober.options.timeout | default 20)) 5 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532 # so that it may read the Secret's files
  seccompProfile: { type: RuntimeDefault }
containers:
  - name: probe
    image: {{ include "switchboard.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args:
      - probe
      - --url={{ $prober.url | default (printf "http://%s:%d" (include "switchboard.fullname" .) (int .Values.service.port)) }}
      {{- range $name, $value := $prober.options }}
      {{- $option := $name | replace "_" "-" }}
      {{- if kindIs "bool" $value }}
      {{- if $value }}
      - --{{ $option }}
      {{- end }}
      {{- else }}
      {{- range (kindIs "slice" $value | ternary $value (list $value)) }}
      - {{ printf "--%s=%s" $option (include "switchboard.text" .) | quote }}
      {{- end }}
      {{- end }}
      {{- end }}
      {{- if not $prober.existingSecret }}
      - --anonymous
      {{- end }}
    {{- if $prober.existingSecret }}
    env:
      {{- range $name, $key := $prober.keys }}
      {{- if $key }}
      - name: SWITCHBOARD_PROBE_{{ upper $name }}_FILE
        value: {{ $secrets }}/{{ $key }}
      {{- end }}
      {{- end }}
    {{- end }}
    resources:
      {{- toYaml $prober.resources | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: { drop: [ALL] }
    {{- if $prober.existingSecret }}
    volumeMounts:
      - { name: secrets, mountPath: {{ $secrets }}, readOnly: true }
    {{- end }}
{{- with $prober.existingSecret }}
volumes:
  - name: secrets
    secret:
      secretName: {{ . }}
      defaultMode: 288 # 0440
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
