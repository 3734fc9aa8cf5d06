{{- define "statekeep.name" -}}
{{- if contains "statekeep" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-statekeep" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "statekeep.selector" -}}
app.kubernetes.io/name: statekeep
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "statekeep.labels" -}}
app.kubernetes.io/name: statekeep
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "statekeep.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "statekeep.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "statekeep.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{- define "statekeep.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "statekeep.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "statekeep.databaseUrl" -}}
- name: STATEKEEP_DATABASE_URL
  valueFrom:
    secretKeyRef: {name: {{ .Values.database.existingSecret | quote }}, key: {{ .Values.database.key | quote }}}
{{- end }}

{{- /* A probe of a service: gRPC's own, or our command where the server speaks TLS, which gRPC's
       probe cannot. */ -}}
{{- define "statekeep.probe" -}}
{{- if .root.Values.tls.existingSecret -}}
exec:
  command:
    - statekeep
    - health
    {{- if .service }}
    - {{ .service }}
    {{- end }}
    - --target=localhost:50551
    - --tls-ca=/etc/statekeep/tls/{{ .root.Values.tls.caKey }}
    - --timeout={{ .root.Values.probes.timeoutSeconds }}
{{- else -}}
grpc:
  port: 50551
  {{- if .service }}
  service: {{ .service }}
  {{- end }}
{{- end }}
periodSeconds: {{ .root.Values.probes.periodSeconds }}
timeoutSeconds: {{ .root.Values.probes.timeoutSeconds }}
{{- end }}
