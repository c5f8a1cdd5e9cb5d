{{/* What no schema of one value can say. */}}
{{- define "authz.refuse" -}}
{{- if not (or .Values.settings.issuers (and .Values.issuer .Values.audience)) -}}
{{- fail "Set issuer and audience: whose tokens are believed, and what they must be for. Or settings.issuers, the path of a file of extraVolumes." -}}
{{- end -}}
{{- if and .Values.settings.issuers (or .Values.issuer .Values.audience) -}}
{{- fail "settings.issuers names issuers and audiences: leave issuer and audience empty." -}}
{{- end -}}
{{- if and .Values.policy.text .Values.policy.existingConfigMap -}}
{{- fail "Set policy.text or policy.existingConfigMap, and not both." -}}
{{- end -}}
{{- if and .Values.introspection.enabled (not .Values.introspection.clientId) -}}
{{- fail "introspection.enabled needs introspection.clientId." -}}
{{- end -}}
{{- if and (eq .Values.store.mode "external") (not .Values.store.external.url) -}}
{{- fail "store.mode external needs store.external.url, such as rediss://HOST:6379." -}}
{{- end -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- fail "autoscaling.minReplicas is more than autoscaling.maxReplicas." -}}
{{- end -}}
{{- end -}}

{{/* Every variable of the server, as YAML. */}}
{{- define "authz.variables" -}}
{{- include "authz.refuse" . -}}
{{- with .Values.issuer }}
AUTHZ_ISSUER: {{ . | quote }}
{{- end }}
{{- with .Values.audience }}
AUTHZ_AUDIENCE: {{ . | quote }}
{{- end }}
AUTHZ_LISTEN: {{ printf "%s%s:9191" (ternary "tls:" "" .Values.tls.enabled) .Values.host | quote }}
{{- if .Values.tls.enabled }}
AUTHZ_TLS_CERT_FILE: /etc/authz/tls/tls.crt
AUTHZ_TLS_KEY_FILE: /etc/authz/tls/tls.key
AUTHZ_TLS_CLIENT_CA_FILE: /etc/authz/tls/ca.crt
{{- end }}
AUTHZ_HTTP_LISTEN: {{ printf "%s:9192" .Values.host | quote }}
AUTHZ_DRAIN: {{ .Values.drain | toJson | quote }}
AUTHZ_GRACE: {{ .Values.grace | toJson | quote }}
{{- if or .Values.policy.text .Values.policy.existingConfigMap }}
AUTHZ_POLICY: /etc/authz/policy/policy.yaml
{{- end }}
{{- if .Values.introspection.enabled }}
AUTHZ_INTROSPECT_MAX_AGE: {{ .Values.introspection.maxAge | toJson | quote }}
AUTHZ_INTROSPECTION_CLIENT_ID: {{ .Values.introspection.clientId | quote }}
AUTHZ_INTROSPECTION_CLIENT_SECRET_FILE: /etc/authz/introspection/client-secret
{{- end }}
{{- if ne .Values.store.mode "none" }}
AUTHZ_STORE: {{ include "authz.storeURL" . | quote }}
AUTHZ_STORE_USERNAME: {{ ternary .Values.store.external.username (printf "authz-%s" (include "authz.storeUser" .)) (eq .Values.store.mode "external") | quote }}
AUTHZ_STORE_PASSWORD_FILE: /etc/authz/store/{{ include "authz.storeUser" . }}-password
{{- if include "authz.storeAuthority" . }}
AUTHZ_STORE_CA_FILE: /etc/authz/store-ca/ca.crt
{{- end }}
{{- end }}
{{- range $name, $value := .Values.settings }}
AUTHZ_{{ upper $name }}: {{ ternary $value (toJson $value) (kindIs "string" $value) | quote }}
{{- end }}
{{- end -}}

{{/* Who replicas are in the store: source where they follow WorkOS, and so give orders. */}}
{{- define "authz.storeUser" -}}
{{- if and (eq .Values.store.mode "bundled") (eq (toString (get .Values.settings "workos_events")) "true") -}}
source
{{- else -}}
server
{{- end -}}
{{- end -}}

{{- define "authz.storeURL" -}}
{{- if eq .Values.store.mode "external" -}}
{{ .Values.store.external.url }}
{{- else -}}
rediss://{{ include "authz.store" . }}.{{ .Release.Namespace }}.svc:6379
{{- end -}}
{{- end -}}

{{/* The Secret with the authority of the store's certificate, or nothing for a public one. */}}
{{- define "authz.storeAuthority" -}}
{{- if eq .Values.store.mode "bundled" -}}
{{ .Values.store.bundled.tlsSecretName }}
{{- else if eq .Values.store.mode "external" -}}
{{ .Values.store.external.caSecretName }}
{{- end -}}
{{- end -}}
