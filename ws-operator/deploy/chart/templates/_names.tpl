{{- define "ws-operator.labels" -}}
app.kubernetes.io/name: ws-operator
app.kubernetes.io/part-of: ws-routing
{{- end }}

{{- define "ws-operator.metadata" -}}
name: ws-operator
labels:
  {{- include "ws-operator.labels" . | nindent 2 }}
{{- end }}

{{- /* An image: (list $ PROGRAM WHOLE-NAME) */ -}}
{{- define "ws-operator.image" -}}
{{- $root := index . 0 -}}
{{- $tag := $root.Values.images.tag | default $root.Chart.AppVersion -}}
{{- index . 2 | default (printf "%s/%s:%s" $root.Values.images.repository (index . 1) $tag) -}}
{{- end }}
