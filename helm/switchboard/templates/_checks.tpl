{{/*
What the schema cannot say: values that are missing, or that contradict each other. All of them at once, each with what
would be right.
*/}}
{{- define "switchboard.checks" -}}
{{- $wrong := list -}}
{{- $redis := include "switchboard.hasRedis" . -}}
{{- $keys := .Values.secret.keys -}}

{{- if not .Values.image.repository -}}
{{- $wrong = append $wrong "image.repository is empty: build the image (docs/deploy.md), push it to your registry and name it here" -}}
{{- end -}}
{{- if not .Values.settings.public_url -}}
{{- $wrong = append $wrong "settings.public_url is empty: where frontends reach the service, like https://voice.example.com" -}}
{{- end -}}
{{- if not (or .Values.policy.files .Values.policy.existingConfigMaps) -}}
{{- $wrong = append $wrong "policy.files is empty: give the policy, like --set-file 'policy.files.acme\\.yaml=acme.yaml', or policy.existingConfigMaps" -}}
{{- end -}}
{{- range $name, $text := .Values.policy.files -}}
{{- if not (regexMatch "^[A-Za-z0-9_-][A-Za-z0-9._-]*\\.ya?ml$" $name) -}}
{{- $wrong = append $wrong (printf "policy.files: %s would not be read: names of files end in .yaml or .yml, and consist of letters, digits, ., _ and -" $name) -}}
{{- end -}}
{{- if gt (len $text) 900000 -}}
{{- $wrong = append $wrong (printf "policy.files: %s has %d characters, and a ConfigMap holds a file of 900000 at most: a file per tenant will do" $name (len $text)) -}}
{{- end -}}
{{- end -}}

{{- if and .Values.secret.existingSecret .Values.externalSecret.store -}}
{{- $wrong = append $wrong "secret.existingSecret and externalSecret.store are both set: the Secret comes from one of them" -}}
{{- else if not (or .Values.secret.existingSecret .Values.externalSecret.store) -}}
{{- $wrong = append $wrong (printf "secret.existingSecret is empty, and no secret is ever made up: create one with the keys %s in namespace %s (docs/deploy.md) and name it here, or set externalSecret.store" (include "switchboard.secretKeys" . | fromJsonArray | join ", ") .Release.Namespace) -}}
{{- end -}}
{{- range $name := list "signing_keys" "user_key_secret" -}}
{{- if not (index $keys $name) -}}
{{- $wrong = append $wrong (printf "secret.keys.%s is empty: under which key of the Secret it is; the service does not start without it" $name) -}}
{{- end -}}
{{- end -}}
{{- if .Values.externalSecret.store -}}
{{- range $key := include "switchboard.secretKeys" . | fromJsonArray -}}
{{- if not (hasKey $.Values.externalSecret.data $key) -}}
{{- $wrong = append $wrong (printf "externalSecret.data lacks %s, which secret names: where it is in the store, like {%s: {key: switchboard, property: %s}}" $key $key $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if and .Values.redis.url $keys.redis_url -}}
{{- $wrong = append $wrong "redis.url and secret.keys.redis_url are both set: the URL comes from one of them" -}}
{{- end -}}
{{- if contains "@" .Values.redis.url -}}
{{- $wrong = append $wrong "redis.url holds a password, which everybody could read who may read the Deployment: put the URL into the Secret and name its key in secret.keys.redis_url" -}}
{{- end -}}
{{- if not $redis -}}
{{- $alone := "without Redis each process counts limits, remembers used grants and knows its calls by itself, so users would get several times their limits and callers would not find their calls. Set redis.url or secret.keys.redis_url" -}}
{{- if .Values.autoscaling.enabled -}}
{{- $wrong = append $wrong (printf "autoscaling.enabled means more than one pod, but there is no Redis: %s, or autoscaling.enabled=false" $alone) -}}
{{- else if gt (int .Values.replicas) 1 -}}
{{- $wrong = append $wrong (printf "replicas is %d, but there is no Redis: %s, or replicas=1" (int .Values.replicas) $alone) -}}
{{- end -}}
{{- if gt (int (.Values.settings.workers | default 1)) 1 -}}
{{- $wrong = append $wrong (printf "settings.workers is %d, but there is no Redis: %s, or settings.workers=1" (int .Values.settings.workers) $alone) -}}
{{- end -}}
{{- end -}}

{{- if .Values.autoscaling.enabled -}}
{{- if lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas) -}}
{{- $wrong = append $wrong "autoscaling.maxReplicas is less than autoscaling.minReplicas" -}}
{{- end -}}
{{- if not (or .Values.autoscaling.cpu .Values.autoscaling.requestsPerSecond) -}}
{{- $wrong = append $wrong "autoscaling has nothing to look at: set autoscaling.cpu or autoscaling.requestsPerSecond" -}}
{{- end -}}
{{- if and .Values.autoscaling.cpu (not (dig "requests" "cpu" "" .Values.resources)) -}}
{{- $wrong = append $wrong "autoscaling.cpu is a share of resources.requests.cpu, which is not set" -}}
{{- end -}}
{{- end -}}

{{- if and .Values.ingress.enabled .Values.httpRoute.enabled -}}
{{- $wrong = append $wrong "ingress.enabled and httpRoute.enabled are both set: choose one way in" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- $wrong = append $wrong "httpRoute.parentRefs is empty: name the Gateway, like [{name: public, namespace: gateways}]" -}}
{{- end -}}

{{- range $name := include "switchboard.extraNames" . | fromJsonArray -}}
{{- if hasPrefix "SWITCHBOARD_" $name -}}
{{- $wrong = append $wrong (printf "%s is the chart's own: write settings.%s, or secret.keys if it is a secret" $name ($name | trimPrefix "SWITCHBOARD_" | lower)) -}}
{{- end -}}
{{- end -}}

{{- if hasPrefix "file:" (.Values.settings.audit | default "") -}}
{{- if not .Values.extraVolumeMounts -}}
{{- $wrong = append $wrong "settings.audit is a file, but the root is read-only: mount a volume for it by extraVolumes and extraVolumeMounts" -}}
{{- end -}}
{{- end -}}

{{- $prober := .Values.prober -}}
{{- if $prober.existingSecret -}}
{{- if eq (empty $prober.keys.signing_key) (empty $prober.keys.token) -}}
{{- $wrong = append $wrong "prober.keys: set signing_key or token, one of them: where in the Secret of the prober it is" -}}
{{- end -}}
{{- if and $prober.keys.signing_key (not $prober.options.issuer) -}}
{{- $wrong = append $wrong "prober.options.issuer is empty: whose key prober.keys.signing_key is, as the policy has it" -}}
{{- end -}}
{{- else if $prober.enabled -}}
{{- $wrong = append $wrong "prober.existingSecret is empty: without a key or a token the prober could not see whether users get in (docs/deploy.md)" -}}
{{- else if $prober.options.call -}}
{{- $wrong = append $wrong "prober.options.call needs a user: set prober.existingSecret" -}}
{{- end -}}

{{- if $wrong -}}
{{- fail (printf "\n\nThis release cannot work yet:\n  - %s\n" (join "\n  - " $wrong)) -}}
{{- end -}}
{{- end -}}

{{/* Every key that the Secret has to have, as a JSON array. */}}
{{- define "switchboard.secretKeys" -}}
{{- concat (values .Values.secret.keys | compact) (values .Values.secret.env) | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* The variables that the values name by themselves, as a JSON array. */}}
{{- define "switchboard.extraNames" -}}
{{- $names := keys .Values.secret.env -}}
{{- range .Values.extraEnv -}}{{- $names = append $names .name -}}{{- end -}}
{{- $names | sortAlpha | toJson -}}
{{- end -}}
