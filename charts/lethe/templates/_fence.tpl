{{/*
Expressions that several admission policies share. Policies are plain files below policies/, rendered by templates/policies.yaml.
*/}}

{{/* Users. */}}
{{- define "lethe.fence.operator" -}}system:serviceaccount:lethe-system:lethe-operator{{- end }}
{{- define "lethe.fence.keyservice" -}}system:serviceaccount:lethe-system:lethe-keyservice{{- end }}

{{/* List of the namespaces whose pods may run on every node. lethe-system is always one of them: scrub pods live there. */}}
{{- define "lethe.fence.systemNamespaces" -}}
{{- concat .Values.systemNamespaces (list "lethe-system") | uniq | toJson | replace "\"" "'" -}}
{{- end }}

{{/*
Is the node on the open list? Argument: expression of its name. The second half is the canary: RBAC so broad that it
allows a node which is never listed says nothing about this one either, so the answer is no.
*/}}
{{- define "lethe.fence.open" -}}
authorizer.serviceAccount('lethe-system', 'open-nodes').group('lethe.dev').resource('gpunodes').namespace('lethe-open').name({{ . }}).check('host').allowed()
&& !authorizer.serviceAccount('lethe-system', 'open-nodes').group('lethe.dev').resource('gpunodes').namespace('lethe-open').name('canary.never-granted').check('host').allowed()
{{- end }}

{{/*
Is the request's namespace a tenant's? The operator alone sets the label. For validations and their variables only:
matchConditions see no namespaceObject; there, use matchConstraints.namespaceSelector.
*/}}
{{- define "lethe.fence.tenantNamespace" -}}
has(namespaceObject.metadata.labels) && 'lethe.dev/tenant' in namespaceObject.metadata.labels
{{- end }}

{{/* Is it a pod of Lethe's? By its name, which nobody can change. Argument: expression of the name. */}}
{{- define "lethe.fence.ours" -}}
(request.namespace == 'lethe-system' && {{ . }}.startsWith('lethe-scrub-'))
|| ({{ . }}.startsWith('lethe-') && {{ include "lethe.fence.tenantNamespace" . }})
{{- end }}

{{/* May the requester change the installation itself? Cluster-wide, so that no right inside a namespace counts. */}}
{{- define "lethe.fence.installer" -}}
authorizer.group('lethe.dev').resource('gpunodes').check('install').allowed()
{{- end }}

{{/* A map that may be absent or null, as a map. Argument: expression. */}}
{{- define "lethe.fence.map" -}}
(has({{ . }}) && {{ . }} != null ? {{ . }} : {})
{{- end }}

{{/* List of the fields of a map that are not allowed, each with its path. Arguments: of, path (expressions), allowed (list). */}}
{{- define "lethe.fence.unlisted" -}}
{{ .of }}.filter(k, !(k in {{ .allowed | toJson | replace "\"" "'" }}) && {{ .of }}[k] != null).map(k, {{ .path }} + k)
{{- end }}
