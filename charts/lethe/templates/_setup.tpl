{{/* Annotations of a hook. Arguments: events, weight. */}}
{{- define "lethe.hook" -}}
helm.sh/hook: {{ .events }}
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* Pod of `lethe-setup`. Arguments: root, command, account, policies (whether they are mounted), seconds. */}}
{{- define "lethe.setupPod" -}}
metadata:
  labels:
    {{- include "lethe.labels" .root | nindent 4 }}
    app.kubernetes.io/component: setup
spec:
  serviceAccountName: {{ .account }}
  restartPolicy: Never
  {{- include "lethe.pod" .root | nindent 2 }}
  containers:
  - name: setup
    image: {{ include "lethe.image" .root | quote }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: {{ concat (list "python3" "-m" "lethe.setup_main") .command | toJson }}
    terminationMessagePolicy: FallbackToLogsOnError
    resources:
      requests: {cpu: 50m, memory: 64Mi}
      limits: {memory: 256Mi}
    securityContext: {{- include "lethe.containerSecurity" .root | nindent 6 }}
    {{- if .policies }}
    volumeMounts:
    - {name: policies, mountPath: /etc/lethe/policies, readOnly: true}
    {{- end }}
  {{- if .policies }}
  volumes:
  - name: policies
    configMap: {name: lethe-policies}
  {{- end }}
{{- end }}
