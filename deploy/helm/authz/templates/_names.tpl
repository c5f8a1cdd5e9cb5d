{{- define "authz.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 57 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 57 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "authz.store" -}}
{{ include "authz.fullname" . }}-store
{{- end -}}

{{- define "authz.policyMap" -}}
{{- .Values.policy.existingConfigMap | default (printf "%s-policy" (include "authz.fullname" .)) -}}
{{- end -}}

{{- define "authz.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "authz.fullname" .) -}}
{{- end -}}

{{- define "authz.image" -}}
{{- $image := index . 0 -}}
{{- $image.repository -}}:{{- $image.tag | default (index . 1) -}}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* What selects pods, and never changes. */}}
{{- define "authz.selector" -}}
app.kubernetes.io/name: authz
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "authz.storeSelector" -}}
app.kubernetes.io/name: authz-store
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* What every object has beside its selector. */}}
{{- define "authz.about" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "authz.labels" -}}
{{ include "authz.selector" . }}
{{ include "authz.about" . }}
{{- end -}}

{{- define "authz.storeLabels" -}}
{{ include "authz.storeSelector" . }}
{{ include "authz.about" . }}
{{- end -}}

{{- define "authz.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "authz.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
