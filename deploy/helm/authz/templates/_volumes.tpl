{{/* Folders and not single files (subPath), which would never change. */}}
{{- define "authz.mounts" -}}
{{- if .Values.tls.enabled }}
- name: tls
  mountPath: /etc/authz/tls
  readOnly: true
{{- end }}
{{- if .Values.introspection.enabled }}
- name: introspection
  mountPath: /etc/authz/introspection
  readOnly: true
{{- end }}
{{- if ne .Values.store.mode "none" }}
- name: store
  mountPath: /etc/authz/store
  readOnly: true
{{- end }}
{{- if include "authz.storeAuthority" . }}
- name: store-ca
  mountPath: /etc/authz/store-ca
  readOnly: true
{{- end }}
{{- if or .Values.policy.text .Values.policy.existingConfigMap }}
- name: policy
  mountPath: /etc/authz/policy
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "authz.volumes" -}}
{{- if .Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ .Values.tls.secretName }}
    defaultMode: 0440
{{- end }}
{{- if .Values.introspection.enabled }}
- name: introspection
  secret:
    secretName: {{ .Values.introspection.secretName }}
    defaultMode: 0440
{{- end }}
{{- if ne .Values.store.mode "none" }}
# That of operators stays with the store.
- name: store
  secret:
    secretName: {{ .Values.store.secretName }}
    {{- $password := printf "%s-password" (include "authz.storeUser" .) }}
    items: [{key: {{ $password }}, path: {{ $password }}}]
    defaultMode: 0440
{{- end }}
{{- with include "authz.storeAuthority" . }}
- name: store-ca
  secret:
    secretName: {{ . }}
    items: [{key: ca.crt, path: ca.crt}]
    defaultMode: 0440
{{- end }}
{{- if or .Values.policy.text .Values.policy.existingConfigMap }}
- name: policy
  configMap:
    name: {{ include "authz.policyMap" . }}
{{- end }}
- name: tmp
  emptyDir:
    medium: Memory
    sizeLimit: 16Mi
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
